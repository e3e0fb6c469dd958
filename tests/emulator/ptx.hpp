// A module of PTX as it is executed: functions, registers, instructions.
//
// PTX has any number of registers; here each is a row of 32 numbers of 64 bits, one a lane, whatever its type.
// Constants and special registers (%tid.x) are registers too, filled before a warp begins, so that operands are of one
// kind.
//
// Left out: local memory, recursion, textures, atomics, TMA, wgmma: what the kernels of this project do not use. The
// parser refuses what it does not know.
//
// Source: NVIDIA, "Parallel Thread Execution ISA", version 8.5.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "text.hpp"

namespace emulator {

constexpr int WARP_LANES = 32;

using Lanes = uint32_t;  // a bit a lane
constexpr Lanes ALL_LANES = ~0u;

enum class Type : uint8_t {
  NONE,
  PREDICATE,
  B8,
  B16,
  B32,
  B64,
  U8,
  U16,
  U32,
  U64,
  S8,
  S16,
  S32,
  S64,
  F16,
  BF16,
  F16X2,
  BF16X2,
  F32,
  F64,
};

// The type of that name without its point, `NONE` if there is none.
Type type_named(const std::string& name);

// Bytes of a value in memory.
int size_of(Type type);

struct Allocation;
struct Instruction;
struct Warp;

// What an instruction does in some lanes.
using Handler = void (*)(Warp&, const Instruction&, Lanes);

// Where an instruction leads; `WARP` is executed by all lanes that it names at once.
enum class Flow : uint8_t { NEXT, WARP, BARRIER, BRANCH, SWITCH, CALL, RETURN };

// An argument or a result of a call: bytes between the parameters of caller and callee.
struct Move {
  int from, to, bytes;
};

struct Instruction {
  Handler run = nullptr;
  Flow flow = Flow::NEXT;
  int predicate = -1;  // a register, -1: executed by all
  bool is_negated = false;
  std::array<int, 4> to{-1, -1, -1, -1};  // registers of results, -1: thrown away
  std::array<int, 10> from{};             // registers of operands; vectors stand one by one, addresses by their base
  int results = 0, operands = 0;
  std::array<int64_t, 2> offset{};  // of the first address and of the second
  int size = 0;                     // bytes of an element in memory
  bool is_signed = false;           // whether it is an integer with a sign
  int members = -1;                 // register of the lanes that an instruction of a warp needs
  int callee = -1;                  // a function
  std::vector<int> targets;         // instructions
  std::vector<Move> arguments, returns;
  std::string text;
  mutable const Allocation* last_seen = nullptr;  // what it touched last: arrays stay the same
  mutable uint64_t seen_at = 0;
};

struct Parameter {
  std::string name;
  int offset, bytes;
};

struct Function {
  std::string name;
  bool is_entry = false;
  int start = -1;        // its first instruction
  int most_threads = 0;  // of a block, 0: unbounded
  std::vector<Parameter> parameters, returns;
};

struct Module {
  std::vector<Function> functions;
  std::map<std::string, int> function_named;
  std::vector<Instruction> code;
  int registers = 0;
  std::vector<std::pair<int, uint64_t>> constants;    // register, value
  std::vector<std::pair<int, std::string>> specials;  // register, name
  int shared_bytes = 0;                               // without what a launch adds
  int parameter_bytes = 0;                            // of a lane, for all calls
};

// Reads a module. Throws `Fault` at anything that is not executed here.
Module parse(const std::string& text);

// Chooses what executes an instruction, its operands being known; words are the opcode's. Each returns nullptr if the
// instruction is not of its kind.
Handler arithmetic(const Words& words, const Instruction& instruction);
Handler memory_access(const Words& words, bool is_entry_parameter);
Handler convert(const Words& words);  // of `arithmetic`
Handler warp_wide(const Words& words);

// Tells whether the opcode has a word.
bool has(const Words& words, const char* word);

}  // namespace emulator
