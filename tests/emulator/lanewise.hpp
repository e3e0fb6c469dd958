// Handlers made of a function of one lane's values.
#pragma once

#include <array>
#include <utility>

#include "numbers.hpp"
#include "warps.hpp"

namespace emulator {

// The handler that gives each lane `function` of its COUNT operands, taken as T; a function without a state.
template <class T, int COUNT, class F>
Handler lanewise(F) {
  return [](Warp& warp, const Instruction& instruction, Lanes lanes) {
    uint64_t* to = warp[instruction.to[0]];
    std::array<const uint64_t*, COUNT> from;
    for (int k = 0; k < COUNT; ++k) from[k] = warp[instruction.from[k]];
    [&]<size_t... K>(std::index_sequence<K...>) {
      for_lanes(lanes, [&](int lane) { to[lane] = bits_of(F{}(as<T>(from[K][lane])...)); });
    }(std::make_index_sequence<COUNT>{});
  };
}

// Each of these calls `make` with a value of the type's own in C++: of integers, of integers without a sign, of floats.
template <class Make>
Handler by_integer(Type type, Make make) {
  switch (type) {
    case Type::B16:
    case Type::U16:
      return make(uint16_t{});
    case Type::B32:
    case Type::U32:
      return make(uint32_t{});
    case Type::B64:
    case Type::U64:
      return make(uint64_t{});
    case Type::S16:
      return make(int16_t{});
    case Type::S32:
      return make(int32_t{});
    case Type::S64:
      return make(int64_t{});
    default:
      return nullptr;
  }
}

template <class Make>
Handler by_bits(Type type, Make make) {
  switch (size_of(type)) {
    case 2:
      return make(uint16_t{});
    case 4:
      return make(uint32_t{});
    case 8:
      return make(uint64_t{});
    default:
      return nullptr;
  }
}

template <class Make>
Handler by_float(Type type, Make make) {
  switch (type) {
    case Type::F32:
      return make(float{});
    case Type::F64:
      return make(double{});
    default:
      return nullptr;
  }
}

inline bool is_half(Type type) { return type == Type::F16 || type == Type::BF16; }
inline bool is_float(Type type) { return type == Type::F32 || type == Type::F64; }

}  // namespace emulator
