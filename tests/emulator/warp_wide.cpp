// Instructions by which the lanes of a warp work together: exchanges, matrix products, loads of matrices.
//
// Which lane holds which element of a matrix: PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions". Sums of
// products are in float32, one after the other; those of a device have another, unspecified order.
#include "numbers.hpp"
#include "warps.hpp"

namespace emulator {

namespace {

// shfl.sync.mode to|is_valid, value, distance, clamp and segment mask, lanes
template <class Source>
void shuffle(Warp& warp, const Instruction& instruction, Lanes lanes, Source source_of) {
  const uint64_t* values = warp[instruction.from[0]];
  std::array<uint64_t, WARP_LANES> found{};
  for_lanes(lanes, [&](int lane) {
    int distance = static_cast<int>(warp[instruction.from[1]][lane] & 31);
    auto bounds = static_cast<uint32_t>(warp[instruction.from[2]][lane]);
    int segment = static_cast<int>(bounds >> 8 & 31), clamp = static_cast<int>(bounds & 31);
    int first = lane & segment, last = first | (clamp & ~segment);
    int source = source_of(lane, distance, first, last, segment);
    found[lane] = values[source];
  });
  for_lanes(lanes, [&](int lane) { warp[instruction.to[0]][lane] = found[lane]; });
}

void shuffle_up(Warp& warp, const Instruction& instruction, Lanes lanes) {
  shuffle(warp, instruction, lanes,
          [](int lane, int distance, int, int last, int) { return lane - distance >= last ? lane - distance : lane; });
}

void shuffle_down(Warp& warp, const Instruction& instruction, Lanes lanes) {
  shuffle(warp, instruction, lanes,
          [](int lane, int distance, int, int last, int) { return lane + distance <= last ? lane + distance : lane; });
}

void shuffle_across(Warp& warp, const Instruction& instruction, Lanes lanes) {
  shuffle(warp, instruction, lanes, [](int lane, int distance, int, int last, int) {
    return (lane ^ distance) <= last ? lane ^ distance : lane;
  });
}

void shuffle_from(Warp& warp, const Instruction& instruction, Lanes lanes) {
  shuffle(warp, instruction, lanes, [](int lane, int index, int first, int last, int segment) {
    int source = first | (index & ~segment);
    return source <= last ? source : lane;
  });
}

void check_is_whole(Warp& warp, const Instruction& instruction, Lanes lanes) {
  if (lanes != ALL_LANES) fail(warp, instruction, std::countr_zero(lanes), "executed by a part of a warp");
}

// Rows and columns of the product, whatever the type.
constexpr int ROWS = 16, COLUMNS = 8;

// C (16, 8) += A (16, DEPTH) B (DEPTH, 8). A register of A or B holds elements that follow each other along the depth;
// the registers of A are two rows' halves, first of the first half of the depth, those of B one half each.
template <class Element, int DEPTH>
void multiply(Warp& warp, const Instruction& instruction, Lanes lanes) {
  check_is_whole(warp, instruction, lanes);
  constexpr int PACKED = 4 / sizeof(Element);
  constexpr int HALF = DEPTH / 2;
  float a[ROWS][DEPTH], b[DEPTH][COLUMNS], c[ROWS][COLUMNS];
  auto element = [&](int operand, int lane, int place) {
    return static_cast<float>(as<Element>(warp[instruction.from[operand]][lane] >> (8 * sizeof(Element) * place)));
  };
  for (int lane = 0; lane < WARP_LANES; ++lane) {
    int group = lane / 4, member = lane % 4;
    for (int place = 0; place < PACKED; ++place) {
      int along = member * PACKED + place;
      for (int k = 0; k < 4; ++k) a[group + k % 2 * 8][along + k / 2 * HALF] = element(k, lane, place);
      for (int k = 0; k < 2; ++k) b[along + k * HALF][group] = element(4 + k, lane, place);
    }
    for (int k = 0; k < 4; ++k) {
      c[group + k / 2 * 8][member * 2 + k % 2] = as<float>(warp[instruction.from[6 + k]][lane]);
    }
  }
  for (int row = 0; row < ROWS; ++row) {
    for (int column = 0; column < COLUMNS; ++column) {
      float sum = 0;
      for (int k = 0; k < DEPTH; ++k) sum += a[row][k] * b[k][column];
      c[row][column] += sum;
    }
  }
  for (int lane = 0; lane < WARP_LANES; ++lane) {
    for (int k = 0; k < 4; ++k) {
      warp[instruction.to[k]][lane] = bits_of(c[lane / 4 + k / 2 * 8][lane % 4 * 2 + k % 2]);
    }
  }
}

// ldmatrix: each lane names a row of eight elements of two bytes, eight lanes a matrix.
template <bool IS_TRANSPOSED>
void load_matrices(Warp& warp, const Instruction& instruction, Lanes lanes) {
  check_is_whole(warp, instruction, lanes);
  constexpr int SIDE = 8;
  const uint64_t* bases = warp[instruction.from[0]];
  uint64_t found[4][WARP_LANES];
  for (int matrix = 0; matrix < instruction.results; ++matrix) {
    uint16_t rows[SIDE][SIDE];
    for (int row = 0; row < SIDE; ++row) {
      int lane = matrix * SIDE + row;
      auto address = static_cast<uint32_t>(bases[lane] + static_cast<uint64_t>(instruction.offset[0]));
      const char* wrong = nullptr;
      const uint8_t* source = warp.block->shared.read(address, sizeof rows[row], warp.index, wrong);
      if (source == nullptr) fail(warp, instruction, lane, wrong);
      std::memcpy(rows[row], source, sizeof rows[row]);
    }
    for (int lane = 0; lane < WARP_LANES; ++lane) {
      int outer = lane / 4, inner = lane % 4 * 2;
      uint32_t low = IS_TRANSPOSED ? rows[inner][outer] : rows[outer][inner];
      uint32_t high = IS_TRANSPOSED ? rows[inner + 1][outer] : rows[outer][inner + 1];
      found[matrix][lane] = low | high << 16;
    }
  }
  for (int matrix = 0; matrix < instruction.results; ++matrix) {
    std::memcpy(warp[instruction.to[matrix]], found[matrix], sizeof found[matrix]);
  }
}

void meet(Warp&, const Instruction&, Lanes) {}

}  // namespace

Handler warp_wide(const Words& words) {
  const std::string& name = words[0];
  if (name == "bar" && words[1] == "warp") return meet;
  if (name == "shfl" && words.back() == "b32") {
    if (has(words, "up")) return shuffle_up;
    if (has(words, "down")) return shuffle_down;
    return has(words, "bfly") ? shuffle_across : shuffle_from;
  }
  if (name == "ldmatrix" && has(words, "m8n8") && words.back() == "b16") {
    return has(words, "trans") ? load_matrices<true> : load_matrices<false>;
  }
  if (name == "mma" && has(words, "row") && has(words, "col") && words.back() == "f32") {
    if (has(words, "m16n8k16") && has(words, "f16")) return multiply<Half, 16>;
    if (has(words, "m16n8k16") && has(words, "bf16")) return multiply<Bfloat, 16>;
    if (has(words, "m16n8k8") && has(words, "tf32")) return multiply<Tensor32, 8>;
  }
  return nullptr;
}

}  // namespace emulator
