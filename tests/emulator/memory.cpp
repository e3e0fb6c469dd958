// Device memory, shared memory, and the instructions that read and write them.
//
// Checked always: bounds of arrays, alignment. Checked if EMULATOR_STRICT is set: that no device memory is read that
// nobody wrote, no shared memory while a copy to it is under way; and that no byte of shared memory is accessed by two
// warps, once for writing, without a barrier of the block between them. With the value "all" shared memory that nobody
// wrote is not read, either: kernels may, whose vectors reach beyond what they use. A cp.async lands when it is
// awaited, as late as it may: without the wait, what was there before is read.
//
// Left out: accesses of two lanes of one warp, or of two blocks, in an order that nothing guarantees.
#include <map>

#include "warps.hpp"

namespace emulator {

namespace {

const char* const strictness = std::getenv("EMULATOR_STRICT");

}  // namespace

const bool is_strict = strictness != nullptr;
const bool refuses_unwritten = is_strict && std::string(strictness) == "all";

namespace {

// What memory holds that nobody wrote: NaN in every type, so that results show it.
constexpr int UNWRITTEN = 0xff;

// Bytes between arrays and their alignment: that of cuMemAlloc.
constexpr uint64_t ALIGNMENT = 512;

std::map<uint64_t, Allocation> allocations;
uint64_t changes = 1;

Allocation& enter(uint64_t begin, uint64_t bytes, bool is_ours) {
  ++changes;
  return allocations.insert_or_assign(begin, Allocation{begin, bytes, is_ours, {}}).first->second;
}

}  // namespace

uint64_t allocate(uint64_t bytes, bool is_host) {
  uint64_t room = (bytes / ALIGNMENT + 1) * ALIGNMENT;
  void* begin = std::aligned_alloc(ALIGNMENT, room);
  if (begin == nullptr) throw std::bad_alloc();
  std::memset(begin, UNWRITTEN, room);
  Allocation& allocation = enter(reinterpret_cast<uint64_t>(begin), bytes, true);
  if (is_strict && !is_host) allocation.written.assign(bytes, false);  // the host writes without telling
  return allocation.begin;
}

void add_host_memory(uint64_t begin, uint64_t bytes) { enter(begin, bytes, false); }

void release(uint64_t begin) {
  auto found = allocations.find(begin);
  if (found == allocations.end()) return;
  if (found->second.is_ours) std::free(reinterpret_cast<void*>(begin));
  ++changes;
  allocations.erase(found);
}

uint64_t allocations_changed() { return changes; }

const Allocation* allocation_of(uint64_t address, uint64_t bytes) {
  auto behind = allocations.upper_bound(address);
  if (behind == allocations.begin()) return nullptr;
  const Allocation& found = std::prev(behind)->second;
  return address + bytes <= found.begin + found.bytes ? &found : nullptr;
}

void note_written(const Allocation& allocation, uint64_t address, uint64_t bytes) {
  if (allocation.written.empty()) return;
  auto first = allocation.written.begin() + static_cast<int64_t>(address - allocation.begin);
  std::fill(first, first + static_cast<int64_t>(bytes), true);
}

bool is_written(const Allocation& allocation, uint64_t address, uint64_t bytes) {
  for (uint64_t k = 0; !allocation.written.empty() && k < bytes; ++k) {
    if (!allocation.written[address - allocation.begin + k]) return false;
  }
  return true;
}

// ---- shared memory

void SharedMemory::begin(size_t bytes) {
  bytes_.assign(bytes, UNWRITTEN);
  if (is_strict && traces_.size() < bytes) traces_.resize(bytes);
  first_turn_ = ++turn_;  // what traces hold is of an earlier turn: of another block
}

bool SharedMemory::is_inside(uint32_t address, size_t bytes, const char*& wrong) const {
  if (address + bytes > bytes_.size()) {
    wrong = "access outside shared memory";
  } else if (address % bytes != 0) {
    wrong = "misaligned access to shared memory";
  } else {
    return true;
  }
  return false;
}

const uint8_t* SharedMemory::read(uint32_t address, size_t bytes, int warp, const char*& wrong) {
  if (!is_inside(address, bytes, wrong)) return nullptr;
  for (size_t k = address; is_strict && k < address + bytes; ++k) {
    Trace& trace = traces_[k];
    if (trace.written < first_turn_ && refuses_unwritten) {
      wrong = "read of shared memory that nobody wrote";
    } else if (trace.written >= first_turn_ && trace.is_copied) {
      wrong = "read of shared memory before the copy to it is awaited";
    } else if (trace.written == turn_ && trace.writer != warp) {
      wrong = "read of what another warp wrote, without a barrier between";
    } else {
      trace.reader = trace.read == turn_ && trace.reader != warp ? SEVERAL : warp;
      trace.read = turn_;
      continue;
    }
    return nullptr;
  }
  return &bytes_[address];
}

bool SharedMemory::trace_write(uint32_t address, size_t bytes, int warp, bool is_landing, const char*& wrong) {
  for (size_t k = address; is_strict && k < address + bytes; ++k) {
    Trace& trace = traces_[k];
    if (trace.written >= first_turn_ && trace.is_copied && !is_landing) {
      wrong = "write to shared memory before the copy to it is awaited";
    } else if (trace.written == turn_ && trace.writer != warp) {
      wrong = "write over what another warp wrote, without a barrier between";
    } else if (trace.read == turn_ && trace.reader != warp) {
      wrong = "write over what another warp read, without a barrier between";
    } else {
      trace.written = turn_;
      trace.writer = warp;
      trace.is_copied = false;
      continue;
    }
    return false;
  }
  return true;
}

uint8_t* SharedMemory::write(uint32_t address, size_t bytes, int warp, const char*& wrong) {
  bool is_right = is_inside(address, bytes, wrong) && trace_write(address, bytes, warp, false, wrong);
  return is_right ? &bytes_[address] : nullptr;
}

bool SharedMemory::begin_copy(uint32_t address, size_t bytes, int warp, const char*& wrong) {
  if (write(address, bytes, warp, wrong) == nullptr) return false;
  for (size_t k = address; is_strict && k < address + bytes; ++k) traces_[k].is_copied = true;
  return true;
}

uint8_t* SharedMemory::end_copy(uint32_t address, size_t bytes, int warp, const char*& wrong) {
  return trace_write(address, bytes, warp, true, wrong) ? &bytes_[address] : nullptr;
}

// ---- instructions

namespace {

// Checks an access of a lane to device memory.
const Allocation& checked(const Warp& warp, const Instruction& instruction, int lane, uint64_t address,
                          uint64_t bytes) {
  const Allocation* found = instruction.last_seen;
  bool is_known =
      instruction.seen_at == changes && address >= found->begin && address + bytes <= found->begin + found->bytes;
  if (!is_known) {
    found = allocation_of(address, bytes);
    if (found == nullptr) fail(warp, instruction, lane, "access outside of all arrays");
    instruction.last_seen = found;
    instruction.seen_at = changes;
  }
  return *found;
}

void check_aligned(const Warp& warp, const Instruction& instruction, int lane, uint64_t address, uint64_t bytes) {
  if (address % bytes != 0) fail(warp, instruction, lane, "misaligned access");
}

uint64_t address_of(Warp& warp, const Instruction& instruction, int lane, int which = 0) {
  return warp[instruction.from[which]][lane] + static_cast<uint64_t>(instruction.offset[which]);
}

uint32_t shared_address(Warp& warp, const Instruction& instruction, int lane) {
  return static_cast<uint32_t>(address_of(warp, instruction, lane));  // 32 bits, the rest of the register is undefined
}

// Spreads the elements at `source` over the registers of results.
void load(Warp& warp, const Instruction& instruction, int lane, const uint8_t* source) {
  for (int k = 0; k < instruction.results; ++k) {
    if (instruction.to[k] < 0) continue;
    uint64_t value = 0;
    std::memcpy(&value, source + k * instruction.size, instruction.size);
    if (instruction.is_signed) {  // the register may be wider
      int spare = 64 - 8 * instruction.size;
      value = static_cast<uint64_t>(static_cast<int64_t>(value << spare) >> spare);
    }
    warp[instruction.to[k]][lane] = value;
  }
}

// Gathers the operands behind the address at `target`.
void store(Warp& warp, const Instruction& instruction, int lane, uint8_t* target) {
  for (int k = 1; k < instruction.operands; ++k) {
    std::memcpy(target + (k - 1) * instruction.size, &warp[instruction.from[k]][lane], instruction.size);
  }
}

void load_global(Warp& warp, const Instruction& instruction, Lanes lanes) {
  uint64_t bytes = static_cast<uint64_t>(instruction.size) * instruction.results;
  for_lanes(lanes, [&](int lane) {
    uint64_t address = address_of(warp, instruction, lane);
    const Allocation& array = checked(warp, instruction, lane, address, bytes);
    check_aligned(warp, instruction, lane, address, bytes);
    if (!is_written(array, address, bytes)) fail(warp, instruction, lane, "read of device memory that nobody wrote");
    load(warp, instruction, lane, reinterpret_cast<const uint8_t*>(address));
  });
}

void store_global(Warp& warp, const Instruction& instruction, Lanes lanes) {
  uint64_t bytes = static_cast<uint64_t>(instruction.size) * (instruction.operands - 1);
  for_lanes(lanes, [&](int lane) {
    uint64_t address = address_of(warp, instruction, lane);
    const Allocation& array = checked(warp, instruction, lane, address, bytes);
    check_aligned(warp, instruction, lane, address, bytes);
    note_written(array, address, bytes);
    store(warp, instruction, lane, reinterpret_cast<uint8_t*>(address));
  });
}

void load_shared(Warp& warp, const Instruction& instruction, Lanes lanes) {
  size_t bytes = static_cast<size_t>(instruction.size) * instruction.results;
  for_lanes(lanes, [&](int lane) {
    const char* wrong = nullptr;
    const uint8_t* source = warp.block->shared.read(shared_address(warp, instruction, lane), bytes, warp.index, wrong);
    if (source == nullptr) fail(warp, instruction, lane, wrong);
    load(warp, instruction, lane, source);
  });
}

void store_shared(Warp& warp, const Instruction& instruction, Lanes lanes) {
  size_t bytes = static_cast<size_t>(instruction.size) * (instruction.operands - 1);
  for_lanes(lanes, [&](int lane) {
    const char* wrong = nullptr;
    uint8_t* target = warp.block->shared.write(shared_address(warp, instruction, lane), bytes, warp.index, wrong);
    if (target == nullptr) fail(warp, instruction, lane, wrong);
    store(warp, instruction, lane, target);
  });
}

void load_argument(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) { load(warp, instruction, lane, warp.block->parameters + instruction.offset[0]); });
}

void load_parameter(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) { load(warp, instruction, lane, warp.parameter(lane, instruction.offset[0])); });
}

void store_parameter(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) { store(warp, instruction, lane, warp.parameter(lane, instruction.offset[0])); });
}

// cp.async [shared], [global], bytes, bytes to read
void begin_copy(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) {
    Copy copy{shared_address(warp, instruction, lane), address_of(warp, instruction, lane, 1), 0, 0};
    copy.bytes = copy.read = warp[instruction.from[2]][lane];
    if (instruction.operands > 3) copy.read = static_cast<uint32_t>(warp[instruction.from[3]][lane]);
    const char* wrong = nullptr;
    if (!warp.block->shared.begin_copy(copy.to, copy.bytes, warp.index, wrong)) fail(warp, instruction, lane, wrong);
    if (copy.read != 0) {
      const Allocation& array = checked(warp, instruction, lane, copy.from, copy.read);
      check_aligned(warp, instruction, lane, copy.from, copy.bytes);
      if (!is_written(array, copy.from, copy.read)) fail(warp, instruction, lane, "copy of memory that nobody wrote");
    }
    warp.copies[lane].back().push_back(copy);
  });
}

void commit_copies(Warp& warp, const Instruction&, Lanes lanes) {
  for_lanes(lanes, [&](int lane) { warp.copies[lane].emplace_back(); });
}

void wait_for_groups(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) {
    await_copies(warp, instruction, lane, 1 + warp[instruction.from[0]][lane]);  // the open group is none
  });
}

void wait_for_all(Warp& warp, const Instruction& instruction, Lanes lanes) {
  for_lanes(lanes, [&](int lane) { await_copies(warp, instruction, lane, 0); });
}

void do_nothing(Warp&, const Instruction&, Lanes) {}

}  // namespace

void await_copies(Warp& warp, const Instruction& instruction, int lane, size_t kept) {
  auto& groups = warp.copies[lane];
  size_t landing = groups.size() > kept ? groups.size() - kept : 0;
  for (size_t group = 0; group < landing; ++group) {
    for (const Copy& copy : groups[group]) {
      const char* wrong = nullptr;
      uint8_t* target = warp.block->shared.end_copy(copy.to, copy.bytes, warp.index, wrong);
      if (target == nullptr) fail(warp, instruction, lane, wrong);
      std::memset(target, 0, copy.bytes);
      std::memcpy(target, reinterpret_cast<const uint8_t*>(copy.from), copy.read);
    }
  }
  groups.erase(groups.begin(), groups.begin() + static_cast<int64_t>(landing));
  if (groups.empty()) groups.emplace_back();
}

Handler memory_access(const Words& words, bool is_entry_parameter) {
  const std::string& name = words[0];
  bool is_parameter = has(words, "param") || has(words, "param::entry") || has(words, "param::func");
  if (has(words, "local") || has(words, "const")) return nullptr;
  if (name == "ld") {  // without a space of its own an address is global: no kernel takes one of shared memory
    if (is_parameter) return is_entry_parameter ? load_argument : load_parameter;
    return has(words, "shared") ? load_shared : load_global;
  }
  if (name == "st") {
    if (is_parameter) return store_parameter;
    return has(words, "shared") ? store_shared : store_global;
  }
  if (name == "cp" && words[1] == "async") {
    if (words[2] == "commit_group") return commit_copies;
    if (words[2] == "wait_group") return wait_for_groups;
    if (words[2] == "wait_all") return wait_for_all;
    return words.back() == "global" ? begin_copy : nullptr;
  }
  // Hints, and orders of memory that one thread at a time keeps anyway.
  return name == "prefetch" || name == "membar" || name == "fence" || name == "griddepcontrol" ? do_nothing : nullptr;
}

}  // namespace emulator
