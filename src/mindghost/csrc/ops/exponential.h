// e^x of vectors. Each file that is compiled for an instruction set of its own has its own copy.
#pragma once

#include <cstdint>

namespace ghostnet {
namespace {

// e^x for x up to 0, and as far above as powers of two go (88), from polynomials of the rest that a power of two leaves
// (Cephes, by S. Moshier). What is not a number stays. `Bits`: as many unsigned integers.
template <typename Vector, typename Bits>
inline Vector exponential(Vector x) {
  const auto all = [](float value) { return value - Vector{}; };
  x = x < all(-87.0f) ? all(-87.0f) : x;
  const Vector shifted = x * all(1.44269504f) + all(12582912.0f);  // 1.5 * 2^23: rounds to a whole number
  const Vector power = shifted - all(12582912.0f);
  const Vector rest = x - power * all(0.693359375f) - power * all(-2.12194440e-4f);
  static constexpr float kFactors[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                       4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  Vector sum{};
  for (int i = 0; i < 6; ++i) sum = sum * rest + all(kFactors[i]);
  sum = sum * rest * rest + rest + all(1.0f);
  // The whole number, in the last bits of `shifted`, goes to the exponent.
  return sum * (Vector)(((Bits)shifted << 23) + (Bits)all(1.0f));
}

}  // namespace
}  // namespace ghostnet
