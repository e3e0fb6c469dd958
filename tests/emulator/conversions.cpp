// Conversions between types: cvt.
//
// Left out: saturation, rounding of floats but to the nearest and of floats to integers but to zero.
#include <cmath>
#include <limits>
#include <string>

#include "lanewise.hpp"

namespace emulator {

namespace {

// The integer nearest to zero, or the bound that is passed; NaN becomes 0, in 64 bits the lowest bit pattern of a sign.
template <class To>
To truncated(double value) {
  if (value != value) return sizeof(To) == 8 ? static_cast<To>(uint64_t{1} << 63) : To(0);
  if (value >= std::ldexp(1.0, std::numeric_limits<To>::digits)) return std::numeric_limits<To>::max();
  return value <= static_cast<double>(std::numeric_limits<To>::min()) ? std::numeric_limits<To>::min() : To(value);
}

template <class From, class To>
To converted(From value) {
  if constexpr (std::is_integral_v<To> && !std::is_integral_v<From>) {
    return truncated<To>(value);
  } else {
    return To(value);
  }
}

template <class Make>
Handler by_any(Type type, Make make) {
  switch (type) {
    case Type::U8:
    case Type::B8:
      return make(uint8_t{});
    case Type::S8:
      return make(int8_t{});
    case Type::F16:
      return make(Half{});
    case Type::BF16:
      return make(Bfloat{});
    case Type::F32:
    case Type::F64:
      return by_float(type, make);
    default:
      return by_integer(type, make);
  }
}

template <class T>
Handler round_to_integer(const Words& words, T) {
  if (has(words, "rni")) return lanewise<T, 1>([](T a) { return std::nearbyint(a); });
  if (has(words, "rzi")) return lanewise<T, 1>([](T a) { return std::trunc(a); });
  if (has(words, "rmi")) return lanewise<T, 1>([](T a) { return std::floor(a); });
  if (has(words, "rpi")) return lanewise<T, 1>([](T a) { return std::ceil(a); });
  return nullptr;
}

template <class T>
Handler pack_halves() {
  return lanewise<float, 2>([](float high, float low) { return uint32_t(T(high).bits) << 16 | T(low).bits; });
}

Handler round_to_tensor32() {  // half up, away from zero
  return lanewise<uint32_t, 1>([](uint32_t a) { return (a + 0x1000) & 0xffffe000; });
}

}  // namespace

Handler convert(const Words& words) {
  std::vector<Type> types;
  for (const std::string& word : words) {
    if (Type type = type_named(word); type != Type::NONE) types.push_back(type);
  }
  if (has(words, "sat") || has(words, "relu")) return nullptr;
  if (has(words, "tf32") && has(words, "rna")) return round_to_tensor32();
  if (types.size() != 2) return nullptr;
  auto [to, from] = std::pair(types[0], types[1]);
  if (to == Type::F16X2) return pack_halves<Half>();
  if (to == Type::BF16X2) return pack_halves<Bfloat>();
  if (to == from && is_float(to)) return by_float(to, [&]<class T>(T) { return round_to_integer(words, T{}); });
  bool is_to_integer = !is_float(to) && !is_half(to), is_from_integer = !is_float(from) && !is_half(from);
  if (is_to_integer && !is_from_integer && !has(words, "rzi")) return nullptr;
  if (is_to_integer == is_from_integer && size_of(to) < size_of(from) && !is_to_integer && !has(words, "rn"))
    return nullptr;
  return by_any(from, [&]<class From>(From) {
    return by_any(to, []<class To>(To) { return lanewise<From, 1>([](From a) { return converted<From, To>(a); }); });
  });
}

}  // namespace emulator
