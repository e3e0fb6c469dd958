// How a kernel runs: block after block, its warps in turn from barrier to barrier, the lanes of a warp in lockstep.
//
// Where lanes of a warp part, those go on that are deepest in calls, and of these the ones that are furthest back; they
// wait where they meet others. An instruction of a warp waits until all lanes that it names have come, else it is a
// fault: on a device its result would be undefined.
//
// What no device promises, programs must not need: the order of warps between barriers is forward, "reverse" or
// "random", by EMULATOR_ORDER.
#include "warps.hpp"

#include <algorithm>
#include <climits>
#include <numeric>
#include <random>
#include <span>

namespace emulator {

namespace {

// Calls `body(lane)` for those of the lanes for which `is_so(lane)`, and returns them.
template <class Predicate>
Lanes lanes_where(Lanes lanes, Predicate is_so) {
  Lanes found = 0;
  for_lanes(lanes, [&](int lane) { found |= static_cast<Lanes>(is_so(lane)) << lane; });
  return found;
}

// The lanes that go on together, where they are, and where they meet others.
struct Group {
  Lanes lanes;
  int next, meeting;
  bool is_alone;  // no other lane could go on
};

Group choose_group(const Warp& warp, Lanes able) {
  size_t depth = 0;
  for_lanes(able, [&](int lane) { depth = std::max(depth, warp.calls[lane].size()); });
  Lanes deepest = lanes_where(able, [&](int lane) { return warp.calls[lane].size() == depth; });
  int next = INT_MAX, meeting = INT_MAX;
  for_lanes(deepest, [&](int lane) { next = std::min(next, warp.next[lane]); });
  Lanes lanes = lanes_where(deepest, [&](int lane) { return warp.next[lane] == next; });
  for_lanes(deepest & ~lanes, [&](int lane) { meeting = std::min(meeting, warp.next[lane]); });
  return {lanes, next, meeting, lanes == able};
}

void go_to(Warp& warp, Lanes lanes, int next) {
  for_lanes(lanes, [&](int lane) { warp.next[lane] = next; });
}

void move_parameters(Warp& warp, int lane, const std::vector<Move>& moves) {
  for (const Move& move : moves) {
    std::memcpy(warp.parameter(lane, move.to), warp.parameter(lane, move.from), move.bytes);
  }
}

void call(Warp& warp, const Instruction& instruction, int position, int lane) {
  move_parameters(warp, lane, instruction.arguments);
  warp.calls[lane].push_back(position);
  warp.next[lane] = warp.block->module.functions[instruction.callee].start;
}

// Ends a function or, where nothing called it, the thread.
void leave(Warp& warp, const Instruction& instruction, int lane) {
  if (warp.calls[lane].empty()) {
    await_copies(warp, instruction, lane, 0);
    warp.live &= ~(Lanes{1} << lane);
    return;
  }
  int position = warp.calls[lane].back();
  warp.calls[lane].pop_back();
  move_parameters(warp, lane, warp.block->module.code[position].returns);
  warp.next[lane] = position + 1;
}

// An instruction of a warp: executed if all its lanes are here, else these are parked.
void meet_warp(Warp& warp, const Instruction& instruction, int position, Lanes lanes) {
  Lanes here = lanes | lanes_where(warp.parked, [&](int lane) { return warp.next[lane] == position; });
  auto needed = static_cast<Lanes>(warp[instruction.members][std::countr_zero(lanes)]) & warp.live;
  if ((needed & ~here) != 0) {
    go_to(warp, lanes, position);
    warp.parked |= lanes;
    return;
  }
  instruction.run(warp, instruction, here);
  go_to(warp, here, position + 1);
  warp.parked &= ~here;
}

// Executes a group until it ends, meets others or has parted; returns how many instructions that were.
uint64_t run_group(Warp& warp, Group group) {
  const std::vector<Instruction>& code = warp.block->module.code;
  uint64_t executed = 0;
  for (int position = group.next; true;) {
    const Instruction& instruction = code[position];
    Lanes active = group.lanes;
    if (instruction.predicate >= 0) {
      const uint64_t* condition = warp[instruction.predicate];
      active = lanes_where(active, [&](int lane) { return (condition[lane] != 0) != instruction.is_negated; });
    }
    ++executed;
    switch (instruction.flow) {
      case Flow::NEXT:
        if (active != 0) instruction.run(warp, instruction, active);
        if (++position != group.meeting) continue;
        go_to(warp, group.lanes, position);
        return executed;
      case Flow::BRANCH:
        if (group.is_alone && (active == 0 || active == group.lanes)) {  // the usual case: nothing parts or meets
          position = active == 0 ? position + 1 : instruction.targets[0];
          continue;
        }
        go_to(warp, active, instruction.targets[0]);
        go_to(warp, group.lanes & ~active, position + 1);
        return executed;
      case Flow::SWITCH:
        for_lanes(active, [&](int lane) {
          warp.next[lane] = instruction.targets.at(static_cast<uint32_t>(warp[instruction.from[0]][lane]));
        });
        return executed;
      case Flow::CALL:
        go_to(warp, group.lanes & ~active, position + 1);
        for_lanes(active, [&](int lane) { call(warp, instruction, position, lane); });
        return executed;
      case Flow::RETURN:
        go_to(warp, group.lanes & ~active, position + 1);
        for_lanes(active, [&](int lane) { leave(warp, instruction, lane); });
        return executed;
      case Flow::BARRIER:
        go_to(warp, active, position + 1);
        warp.at_barrier |= active;
        return executed;
      case Flow::WARP:
        go_to(warp, group.lanes & ~active, position + 1);
        if (active != 0) meet_warp(warp, instruction, position, active);
        return executed;
    }
  }
}

// Executes a warp until all its lanes are at a barrier or have ended.
uint64_t run_warp(Warp& warp) {
  uint64_t executed = 0;
  while (true) {
    Lanes able = warp.live & ~warp.at_barrier & ~warp.parked;
    if (able != 0) {
      executed += run_group(warp, choose_group(warp, able));
    } else if (warp.parked != 0) {
      int lane = std::countr_zero(warp.parked);
      fail(warp, warp.block->module.code[warp.next[lane]], lane, "some lanes of its warp never come to it");
    } else {
      return executed;
    }
  }
}

uint64_t special_value(const std::string& name, const Block& block, int warp, int lane) {
  auto thread = static_cast<uint32_t>(warp * WARP_LANES + lane);
  std::array<uint32_t, 3> place{thread % block.threads[0], thread / block.threads[0] % block.threads[1],
                                thread / block.threads[0] / block.threads[1]};
  size_t axis = static_cast<size_t>(name.back() - 'x');
  if (name == "%laneid") return lane;
  if (name == "%warpid") return warp;
  if (name.rfind("%tid.", 0) == 0) return place.at(axis);
  if (name.rfind("%ntid.", 0) == 0) return block.threads.at(axis);
  return name.rfind("%ctaid.", 0) == 0 ? block.index.at(axis) : block.count.at(axis);
}

void begin(Warp& warp, Block& block, int index, int threads) {
  warp.block = &block;
  warp.index = index;
  int lanes = std::min(WARP_LANES, threads - index * WARP_LANES);
  warp.live = lanes == WARP_LANES ? ALL_LANES : (Lanes{1} << lanes) - 1;
  warp.at_barrier = warp.parked = 0;
  warp.next.fill(block.kernel.start);
  for (auto& calls : warp.calls) calls.clear();
  for (auto& groups : warp.copies) groups.assign(1, {});
  for (const auto& [name, special] : block.module.specials) {
    for (int lane = 0; lane < WARP_LANES; ++lane) warp[name][lane] = special_value(special, block, index, lane);
  }
}

// Puts warps into the order in which they run until the next barrier.
void arrange(std::vector<int>& order) {
  static const char* const wanted = std::getenv("EMULATOR_ORDER");
  static std::mt19937 random(1);
  if (wanted == nullptr) return;
  if (std::string(wanted) == "random") {
    std::shuffle(order.begin(), order.end(), random);
  } else if (std::string(wanted) == "reverse") {
    std::sort(order.begin(), order.end(), std::greater<>());
  } else {
    throw Fault("EMULATOR_ORDER is \"reverse\" or \"random\", not \"" + std::string(wanted) + "\"");
  }
}

uint64_t run_block(Block& block, std::span<Warp> warps) {
  uint64_t executed = 0;
  std::vector<int> order(warps.size());
  std::iota(order.begin(), order.end(), 0);
  auto is_live = [](const Warp& warp) { return warp.live != 0; };
  while (std::any_of(warps.begin(), warps.end(), is_live)) {
    arrange(order);
    for (int index : order) executed += run_warp(warps[index]);
    for (Warp& warp : warps) warp.at_barrier = 0;  // all that live have come
    block.shared.pass_barrier();
  }
  return executed;
}

}  // namespace

void fail(const Warp& warp, const Instruction& instruction, int lane, const std::string& what) {
  const Block& block = *warp.block;
  auto triple = [](const std::array<uint32_t, 3>& of) {
    return "(" + std::to_string(of[0]) + ", " + std::to_string(of[1]) + ", " + std::to_string(of[2]) + ")";
  };
  throw Fault(what + ": block " + triple(block.index) + ", thread " + std::to_string(warp.index * WARP_LANES + lane) +
              " of " + block.kernel.name + ": " + instruction.text);
}

uint64_t launch(const Module& module, const Function& kernel, const uint8_t* parameters, std::array<uint32_t, 3> blocks,
                std::array<uint32_t, 3> threads, size_t shared_bytes) {
  static std::vector<Warp>
      pool;  // kept, like shared memory: the system takes longer for fresh memory than most launches
  static SharedMemory shared;
  Block block{module, kernel, parameters, {}, blocks, threads, shared};
  auto count = static_cast<int>(threads[0] * threads[1] * threads[2]);
  size_t needed = (count + WARP_LANES - 1) / WARP_LANES;
  if (pool.size() < needed) pool.resize(needed);
  std::span<Warp> warps(pool.data(), needed);
  for (Warp& warp : warps) {
    size_t registers = static_cast<size_t>(module.registers) * WARP_LANES;
    size_t bytes = static_cast<size_t>(module.parameter_bytes) * WARP_LANES;
    if (warp.registers.size() < registers) warp.registers.resize(registers);
    if (warp.parameters.size() < bytes) warp.parameters.resize(bytes);
    for (auto [name, value] : module.constants) std::fill_n(warp[name], WARP_LANES, value);
  }
  uint64_t executed = 0;
  for (block.index[2] = 0; block.index[2] < blocks[2]; ++block.index[2]) {
    for (block.index[1] = 0; block.index[1] < blocks[1]; ++block.index[1]) {
      for (block.index[0] = 0; block.index[0] < blocks[0]; ++block.index[0]) {
        block.shared.begin(module.shared_bytes + shared_bytes);
        for (size_t k = 0; k < warps.size(); ++k) begin(warps[k], block, static_cast<int>(k), count);
        executed += run_block(block, warps);
      }
    }
  }
  return executed;
}

}  // namespace emulator
