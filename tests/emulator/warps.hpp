// What a kernel is executed on: warps of 32 lanes, the block that shares memory between them, device memory.
#pragma once

#include <bit>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "ptx.hpp"

namespace emulator {

// A kernel's error, or PTX that is not executed here.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Whether accesses of two warps without a barrier between them, and reads of what nobody wrote, are faults: in device
// memory, and in shared memory.
extern const bool is_strict, refuses_unwritten;

// ---- device memory

struct Allocation {
  uint64_t begin, bytes;
  bool is_ours;                       // else of the host, which only told of it
  mutable std::vector<bool> written;  // byte by byte, if strict; empty: all of it
};

uint64_t allocate(uint64_t bytes, bool is_host);
void release(uint64_t begin);
void add_host_memory(uint64_t begin, uint64_t bytes);
uint64_t allocations_changed();

// The allocation that holds these bytes, nullptr if they are not in one.
const Allocation* allocation_of(uint64_t address, uint64_t bytes);

// Notes that bytes were written, where an allocation keeps account.
void note_written(const Allocation& allocation, uint64_t address, uint64_t bytes);

// Tells whether all bytes were written before.
bool is_written(const Allocation& allocation, uint64_t address, uint64_t bytes);

// ---- shared memory

// The shared memory of a block. In strict mode each byte has a trace: who wrote and who read it, between which
// barriers.
class SharedMemory {
 public:
  // Begins a block: nothing is written.
  void begin(size_t bytes);
  // Begins what follows a barrier.
  void pass_barrier() { ++turn_; }

  // Each gives the bytes, or a null pointer and in `wrong` the reason.
  const uint8_t* read(uint32_t address, size_t bytes, int warp, const char*& wrong);
  uint8_t* write(uint32_t address, size_t bytes, int warp, const char*& wrong);

  // The beginning and the landing of an asynchronous copy to these bytes.
  bool begin_copy(uint32_t address, size_t bytes, int warp, const char*& wrong);
  uint8_t* end_copy(uint32_t address, size_t bytes, int warp, const char*& wrong);

 private:
  static constexpr int SEVERAL = -1;  // warps
  struct Trace {
    uint64_t written = 0, read = 0;  // turns
    int writer = 0, reader = 0;      // warps
    bool is_copied = false;          // by a copy that is not awaited yet
  };
  bool is_inside(uint32_t address, size_t bytes, const char*& wrong) const;
  bool trace_write(uint32_t address, size_t bytes, int warp, bool is_landing, const char*& wrong);

  std::vector<uint8_t> bytes_;
  std::vector<Trace> traces_;
  uint64_t turn_ = 1, first_turn_ = 1;
};

// ---- execution

struct Block {
  const Module& module;
  const Function& kernel;
  const uint8_t* parameters;
  std::array<uint32_t, 3> index{}, count{}, threads{};  // %ctaid, %nctaid, %ntid
  SharedMemory& shared;
};

struct Copy {
  uint32_t to;
  uint64_t from;
  size_t bytes, read;  // the rest of the bytes become zero
};

struct Warp {
  Block* block = nullptr;
  int index = 0;
  Lanes live = 0, at_barrier = 0, parked = 0;  // parked: at a warp's instruction, until its other lanes come
  std::array<int, WARP_LANES> next{};          // instruction
  std::array<std::vector<int>, WARP_LANES> calls;
  std::array<std::vector<std::vector<Copy>>, WARP_LANES> copies;  // groups, the last one open
  std::vector<uint64_t> registers;
  std::vector<uint8_t> parameters;  // of calls

  // A register, lane by lane.
  uint64_t* operator[](int name) { return registers.data() + static_cast<size_t>(name) * WARP_LANES; }
  // The place of a call's parameter in a lane.
  uint8_t* parameter(int lane, int64_t offset) {
    return parameters.data() + static_cast<size_t>(lane) * block->module.parameter_bytes + offset;
  }
};

[[noreturn]] void fail(const Warp& warp, const Instruction& instruction, int lane, const std::string& what);

// Lets all copies of a lane land but the last `kept` groups.
void await_copies(Warp& warp, const Instruction& instruction, int lane, size_t kept);

// Executes a kernel, block after block; returns how many instructions its warps executed.
uint64_t launch(const Module& module, const Function& kernel, const uint8_t* parameters, std::array<uint32_t, 3> blocks,
                std::array<uint32_t, 3> threads, size_t shared_bytes);

// Calls `body` for each of the lanes; with all of them in a loop that the compiler makes vectors of.
template <class Body>
void for_lanes(Lanes lanes, Body body) {
  if (lanes == ALL_LANES) {
    for (int lane = 0; lane < WARP_LANES; ++lane) body(lane);
    return;
  }
  for (; lanes != 0; lanes &= lanes - 1) body(std::countr_zero(lanes));
}

// The value that the lowest bytes of a register hold.
template <class T>
T as(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A register that holds a value, the rest zero.
template <class T>
uint64_t bits_of(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

}  // namespace emulator
