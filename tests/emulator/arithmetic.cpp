// Instructions that each lane executes for itself, on registers alone.
//
// Each handler is made of a function of one lane's values. Where bits are all that counts (sums, products' lower half,
// logic), integers are unsigned, of which C++ defines the overflow.
//
// Left out: saturation, carries, flushing of subnormal numbers (.ftz: only ex2 has it here, and its error is larger),
// rounding but to the nearest.
#include <algorithm>
#include <cmath>
#include <functional>

#include "lanewise.hpp"

namespace emulator {

namespace {

// Two halves in a register.
template <class T>
struct Pair {
  T low, high;
};

// Arithmetic of halves, whose exact result is rounded once: float64 holds sums and products of them exactly.
template <class T, bool IS_PAIR, int COUNT, class F>
Handler of_halves(F) {
  if constexpr (IS_PAIR) {
    return lanewise<Pair<T>, COUNT>([](auto... a) {
      return Pair<T>{T(F{}(double(a.low)...)), T(F{}(double(a.high)...))};
    });
  } else {
    return lanewise<T, COUNT>([](auto... a) { return T(F{}(double(a)...)); });
  }
}

template <class T, bool IS_PAIR>
Handler half_arithmetic(const std::string& name) {
  if (name == "add") return of_halves<T, IS_PAIR, 2>([](double a, double b) { return a + b; });
  if (name == "sub") return of_halves<T, IS_PAIR, 2>([](double a, double b) { return a - b; });
  if (name == "mul") return of_halves<T, IS_PAIR, 2>([](double a, double b) { return a * b; });
  if (name == "fma") return of_halves<T, IS_PAIR, 3>([](double a, double b, double c) { return a * b + c; });
  if (name == "min") return of_halves<T, IS_PAIR, 2>([](double a, double b) { return std::fmin(a, b); });
  if (name == "max") return of_halves<T, IS_PAIR, 2>([](double a, double b) { return std::fmax(a, b); });
  if (name == "neg") return of_halves<T, IS_PAIR, 1>([](double a) { return -a; });
  if (name == "abs") return of_halves<T, IS_PAIR, 1>([](double a) { return std::fabs(a); });
  return nullptr;
}

template <class T>
Handler float_arithmetic(const std::string& name, T) {
  if (name == "add") return lanewise<T, 2>([](T a, T b) { return a + b; });
  if (name == "sub") return lanewise<T, 2>([](T a, T b) { return a - b; });
  if (name == "mul") return lanewise<T, 2>([](T a, T b) { return a * b; });
  if (name == "div") return lanewise<T, 2>([](T a, T b) { return a / b; });
  if (name == "fma") return lanewise<T, 3>([](T a, T b, T c) { return std::fma(a, b, c); });
  if (name == "min") return lanewise<T, 2>([](T a, T b) { return std::fmin(a, b); });  // of NaN and a number the number
  if (name == "max") return lanewise<T, 2>([](T a, T b) { return std::fmax(a, b); });
  if (name == "neg") return lanewise<T, 1>([](T a) { return -a; });
  if (name == "abs") return lanewise<T, 1>([](T a) { return std::fabs(a); });
  if (name == "copysign") return lanewise<T, 2>([](T a, T b) { return std::copysign(b, a); });
  if (name == "sqrt") return lanewise<T, 1>([](T a) { return std::sqrt(a); });
  if (name == "rcp") return lanewise<T, 1>([](T a) { return T(1) / a; });
  return nullptr;
}

// What has the same bits for integers with a sign and without.
template <class T>
Handler bit_arithmetic(const Words& words, T) {
  const std::string& name = words[0];
  if (name == "add") return lanewise<T, 2>([](T a, T b) { return T(a + b); });
  if (name == "sub") return lanewise<T, 2>([](T a, T b) { return T(a - b); });
  if (name == "neg") return lanewise<T, 1>([](T a) { return T(T(0) - a); });
  if (name == "and") return lanewise<T, 2>([](T a, T b) { return T(a & b); });
  if (name == "or") return lanewise<T, 2>([](T a, T b) { return T(a | b); });
  if (name == "xor") return lanewise<T, 2>([](T a, T b) { return T(a ^ b); });
  if (name == "not") return lanewise<T, 1>([](T a) { return T(~a); });
  if (name == "shl") {
    return lanewise<uint64_t, 2>(
        [](uint64_t a, uint64_t by) { return uint32_t(by) < 8 * sizeof(T) ? T(T(a) << uint32_t(by)) : T(0); });
  }
  if (name == "mul" && has(words, "lo")) return lanewise<T, 2>([](T a, T b) { return T(uint64_t(a) * b); });
  if (name == "mad" && has(words, "lo")) return lanewise<T, 3>([](T a, T b, T c) { return T(uint64_t(a) * b + c); });
  if (name == "popc") return lanewise<T, 1>([](T a) { return uint32_t(std::popcount(a)); });
  if (name == "clz") return lanewise<T, 1>([](T a) { return uint32_t(std::countl_zero(a)); });
  return nullptr;
}

// The type of products of two integers.
template <class T>
struct Twice;
template <>
struct Twice<uint16_t> {
  using type = uint32_t;
};
template <>
struct Twice<int16_t> {
  using type = int32_t;
};
template <>
struct Twice<uint32_t> {
  using type = uint64_t;
};
template <>
struct Twice<int32_t> {
  using type = int64_t;
};
template <>
struct Twice<uint64_t> {
  using type = unsigned __int128;
};
template <>
struct Twice<int64_t> {
  using type = __int128;
};

template <class T>
Handler integer_arithmetic(const Words& words, T) {
  using Product = typename Twice<T>::type;
  const std::string& name = words[0];
  if (name == "min") return lanewise<T, 2>([](T a, T b) { return std::min(a, b); });
  if (name == "max" && has(words, "relu")) return lanewise<T, 2>([](T a, T b) { return std::max({a, b, T(0)}); });
  if (name == "max") return lanewise<T, 2>([](T a, T b) { return std::max(a, b); });
  // Division by zero has a value on devices, all ones, and does not trap.
  if (name == "div") return lanewise<T, 2>([](T a, T b) { return b == 0 ? T(-1) : T(a / b); });
  if (name == "rem") return lanewise<T, 2>([](T a, T b) { return b == 0 ? a : T(a % b); });
  if (name == "abs") return lanewise<T, 1>([](T a) { return a < 0 ? T(0) - a : a; });
  if (name == "shr") {
    return lanewise<uint64_t, 2>([](uint64_t a, uint64_t by) {
      constexpr uint32_t LAST = 8 * sizeof(T) - 1;
      T value = as<T>(a);
      return uint32_t(by) <= LAST ? T(value >> uint32_t(by)) : T(value >> LAST >> 1);
    });
  }
  if (name == "mul" && has(words, "hi")) {
    return lanewise<T, 2>([](T a, T b) { return T(Product(a) * b >> 8 * sizeof(T)); });
  }
  if constexpr (sizeof(T) < sizeof(uint64_t)) {
    if (name == "mul" && has(words, "wide")) return lanewise<T, 2>([](T a, T b) { return Product(Product(a) * b); });
    if (name == "mad" && has(words, "wide")) {
      return lanewise<uint64_t, 3>([](uint64_t a, uint64_t b, uint64_t c) {
        return std::make_unsigned_t<Product>(c + uint64_t(Product(as<T>(a)) * as<T>(b)));
      });
    }
  }
  return nullptr;
}

// Comparisons, whose names with a `u` in front or behind are those of integers without a sign and of floats that are
// true of NaN.
template <class T>
Handler compare(const std::string& name, T) {
  if (name == "eq") return lanewise<T, 2>([](T a, T b) { return a == b; });
  if (name == "ne") return lanewise<T, 2>([](T a, T b) { return a < b || a > b; });
  if (name == "lt" || name == "lo") return lanewise<T, 2>([](T a, T b) { return a < b; });
  if (name == "le" || name == "ls") return lanewise<T, 2>([](T a, T b) { return a <= b; });
  if (name == "gt" || name == "hi") return lanewise<T, 2>([](T a, T b) { return a > b; });
  if (name == "ge" || name == "hs") return lanewise<T, 2>([](T a, T b) { return a >= b; });
  if (name == "equ") return lanewise<T, 2>([](T a, T b) { return !(a < b || a > b); });
  if (name == "neu") return lanewise<T, 2>([](T a, T b) { return a != b; });
  if (name == "ltu") return lanewise<T, 2>([](T a, T b) { return !(a >= b); });
  if (name == "leu") return lanewise<T, 2>([](T a, T b) { return !(a > b); });
  if (name == "gtu") return lanewise<T, 2>([](T a, T b) { return !(a <= b); });
  if (name == "geu") return lanewise<T, 2>([](T a, T b) { return !(a < b); });
  if (name == "num") return lanewise<T, 2>([](T a, T b) { return a == a && b == b; });
  if (name == "nan") return lanewise<T, 2>([](T a, T b) { return a != a || b != b; });
  return nullptr;
}

// Predicates are registers that are zero or not.
Handler logic(const std::string& name) {
  using P = uint64_t;
  if (name == "and") return lanewise<P, 2>([](P a, P b) { return a != 0 && b != 0; });
  if (name == "or") return lanewise<P, 2>([](P a, P b) { return a != 0 || b != 0; });
  if (name == "xor") return lanewise<P, 2>([](P a, P b) { return (a != 0) != (b != 0); });
  if (name == "not") return lanewise<P, 1>([](P a) { return a == 0; });
  return nullptr;
}

// ---- moves

void move(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) { warp[instruction.to[0]][lane] = warp[instruction.from[0]][lane]; });
}

// A vector into a register, the first element lowest, or out of it.
void pack(Warp& warp, const Instruction& instruction, Lanes lanes) {
  int bytes = instruction.size / instruction.operands;
  for_lanes(lanes, [&](int lane) {
    uint64_t whole = 0;
    for (int k = 0; k < instruction.operands; ++k) {
      std::memcpy(reinterpret_cast<uint8_t*>(&whole) + k * bytes, &warp[instruction.from[k]][lane], bytes);
    }
    warp[instruction.to[0]][lane] = whole;
  });
}

void unpack(Warp& warp, const Instruction& instruction, Lanes lanes) {
  int bytes = instruction.size / instruction.results;
  for_lanes(lanes, [&](int lane) {
    uint64_t whole = warp[instruction.from[0]][lane];
    for (int k = 0; k < instruction.results; ++k) {
      if (instruction.to[k] >= 0) {
        uint64_t part = 0;
        std::memcpy(&part, reinterpret_cast<const uint8_t*>(&whole) + k * bytes, bytes);
        warp[instruction.to[k]][lane] = part;
      }
    }
  });
}

// ---- the rest

// bfi: the lowest `count` bits of a, put into b at `place`.
uint32_t with_bits(uint32_t a, uint32_t b, uint32_t place, uint32_t count) {
  uint64_t mask = (count % 256 >= 32 ? uint64_t{0} : uint64_t{1} << count % 256) - 1;
  if (place % 256 >= 32) return b;
  mask <<= place % 256;
  return static_cast<uint32_t>((b & ~mask) | (uint64_t{a} << place % 256 & mask));
}

// bfe: `count` bits of a from `place` on, as an integer with a sign or without.
template <class T>
uint32_t bits_at(uint32_t a, uint32_t place, uint32_t count) {
  place %= 256;
  count %= 256;
  if (count == 0) return 0;
  int64_t value = T(a);
  value >>= std::min(place, 63u);
  if (count >= 32) return static_cast<uint32_t>(value);
  uint64_t up = 64 - count;
  return static_cast<uint32_t>(std::is_signed_v<T> ? int64_t(uint64_t(value) << up) >> up
                                                   : uint64_t(value) << up >> up);
}

// prmt: four bytes of the eight of a and b, each named by four bits, the highest of which stands for the byte's sign.
uint32_t chosen_bytes(uint32_t a, uint32_t b, uint32_t choice) {
  uint64_t bytes = a | uint64_t{b} << 32;
  uint32_t chosen = 0;
  for (int k = 0; k < 4; ++k) {
    uint32_t name = choice >> 4 * k & 15;
    auto byte = static_cast<int8_t>(bytes >> 8 * (name & 7));
    if ((name & 8) != 0) byte = static_cast<int8_t>(byte < 0 ? -1 : 0);
    chosen |= static_cast<uint32_t>(static_cast<uint8_t>(byte)) << 8 * k;
  }
  return chosen;
}

Handler bits_and_bytes(const Words& words) {
  using U = uint32_t;
  const std::string& name = words[0];
  if (words.back() != "b32" && name != "bfe") return nullptr;
  if (name == "bfi") return lanewise<U, 4>([](U a, U b, U place, U count) { return with_bits(a, b, place, count); });
  if (name == "bfe" && words.back() == "u32") return lanewise<U, 3>([](U a, U b, U c) { return bits_at<U>(a, b, c); });
  if (name == "bfe" && words.back() == "s32") {
    return lanewise<U, 3>([](U a, U b, U c) { return bits_at<int32_t>(a, b, c); });
  }
  if (name == "prmt" && words.size() == 2) return lanewise<U, 3>([](U a, U b, U c) { return chosen_bytes(a, b, c); });
  if (name == "shf" && words[2] == "wrap") {  // the upper or the lower half of (b, a), shifted
    if (words[1] == "l") {
      return lanewise<U, 3>([](U a, U b, U by) { return U((a | uint64_t{b} << 32) << (by & 31) >> 32); });
    }
    return lanewise<U, 3>([](U a, U b, U by) { return U((a | uint64_t{b} << 32) >> (by & 31)); });
  }
  return nullptr;
}

// Approximations are here as good as the library's: within their error.
Handler approximation(const std::string& name) {
  if (name == "ex2") return lanewise<float, 1>([](float a) { return std::exp2(a); });
  if (name == "lg2") return lanewise<float, 1>([](float a) { return std::log2(a); });
  if (name == "rsqrt") return lanewise<float, 1>([](float a) { return 1 / std::sqrt(a); });
  if (name == "tanh") return lanewise<float, 1>([](float a) { return std::tanh(a); });
  return nullptr;
}

}  // namespace

Handler arithmetic(const Words& words, const Instruction& instruction) {
  const std::string& name = words[0];
  Type type = type_named(words.back());
  if (type == Type::NONE || has(words, "sat") || has(words, "NaN") || has(words, "cc")) return nullptr;
  if (name == "mov" && instruction.results > 1) return unpack;
  if (name == "mov") return instruction.operands > 1 ? pack : move;
  if (name == "cvta") return has(words, "global") ? move : nullptr;  // addresses of device memory are generic
  if (name == "selp") return lanewise<uint64_t, 3>([](uint64_t a, uint64_t b, uint64_t p) { return p != 0 ? a : b; });
  if (name == "cvt") return convert(words);
  if (name == "setp") {
    if (words.size() != 3) return nullptr;  // combined with another predicate
    if (is_float(type)) return by_float(type, [&]<class T>(T) { return compare(words[1], T{}); });
    return by_integer(type, [&]<class T>(T) { return compare(words[1], T{}); });
  }
  if (type == Type::PREDICATE) return logic(name);
  if (type == Type::F16) return half_arithmetic<Half, false>(name);
  if (type == Type::F16X2) return half_arithmetic<Half, true>(name);
  if (type == Type::BF16) return half_arithmetic<Bfloat, false>(name);
  if (type == Type::BF16X2) return half_arithmetic<Bfloat, true>(name);
  if (Handler found = approximation(name); found != nullptr) return type == Type::F32 ? found : nullptr;
  if (is_float(type)) return by_float(type, [&]<class T>(T) { return float_arithmetic(name, T{}); });
  if (Handler found = bits_and_bytes(words); found != nullptr) return found;
  Handler found = by_bits(type, [&]<class T>(T) { return bit_arithmetic(words, T{}); });
  return found != nullptr ? found : by_integer(type, [&]<class T>(T) { return integer_arithmetic(words, T{}); });
}

}  // namespace emulator
