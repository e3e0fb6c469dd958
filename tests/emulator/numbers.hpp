// Floating-point types of devices that C++ 20 has no name for. They become float to be reckoned with.
#pragma once

#include <bit>
#include <cstdint>

namespace emulator {

// IEEE's binary16; the compiler rounds.
struct Half {
  uint16_t bits;
  Half() = default;
  explicit Half(double value) : bits(std::bit_cast<uint16_t>(static_cast<_Float16>(value))) {}
  operator float() const { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
};

// The upper half of a float.
struct Bfloat {
  uint16_t bits;
  Bfloat() = default;
  explicit Bfloat(double value) : bits(rounded(static_cast<float>(value))) {}
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

 private:
  // To the nearest, of two as near to the even one; NaN has one form, as on devices.
  static uint16_t rounded(float value) {
    auto whole = std::bit_cast<uint32_t>(value);
    if (value != value) return 0x7fff;
    return static_cast<uint16_t>((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
  }
};

// A float whose last 13 bits tensor cores do not read.
struct Tensor32 {
  uint32_t bits;
  operator float() const { return std::bit_cast<float>(bits & 0xffffe000); }
};

}  // namespace emulator
