// Compiled once for each instruction set: GHOSTNET_KERNELS names the table that results, GHOSTNET_WIDTH is the number
// of floats in a vector, GHOSTNET_PIXELS that of pixels (kTogether floats) in one that sums up products. Nothing here may
// instantiate what other files share (inline functions, templates of the standard library): the linker would keep one
// copy, maybe with instructions that the machine lacks.
#include "kernels.h"

#include "exponential.h"

#if GHOSTNET_PIXELS == 2
#include <immintrin.h>
#endif

namespace ghostnet {
namespace {

constexpr int kWidth = GHOSTNET_WIDTH;
typedef float Vector __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Bits __attribute__((vector_size(kWidth * 4)));

inline Vector load(const float* x) { return *reinterpret_cast<const Vector*>(x); }
inline void store(float* y, Vector value) { *reinterpret_cast<Vector*>(y) = value; }
inline Vector all(float value) { return value - Vector{}; }

inline double total(Vector value) {
  double result = 0;
  for (int i = 0; i < kWidth; ++i) result += value[i];
  return result;
}

// The first `count` elements of a vector from memory, zeros after them.
inline Vector load_part(const float* x, int64_t count) {
  Vector value{};
  for (int64_t i = 0; i < count; ++i) value[i] = x[i];
  return value;
}

inline void store_part(float* y, Vector value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = value[i];
}

// NaN stays NaN: a run that diverges has to be seen.
inline Vector relu(Vector value) { return value < Vector{} ? Vector{} : value; }

inline Vector transform(Vector x, Vector mean, Vector scale, Vector shift) { return (x - mean) * scale + shift; }

// dy, or 0 where the ReLU let nothing through.
template <bool kRelu>
inline Vector through(Vector dy, Vector x, Vector mean, Vector scale, Vector shift) {
  if (!kRelu) return dy;
  return transform(x, mean, scale, shift) <= Vector{} ? Vector{} : dy;
}

double sum(const float* x, int64_t size) {
  Vector a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kWidth <= size; i += 2 * kWidth) {
    a += load(x + i);
    b += load(x + i + kWidth);
  }
  double result = total(a) + total(b);
  for (; i < size; ++i) result += x[i];
  return result;
}

double product(const float* x, const float* y, int64_t size) {
  Vector a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kWidth <= size; i += 2 * kWidth) {
    a += load(x + i) * load(y + i);
    b += load(x + i + kWidth) * load(y + i + kWidth);
  }
  double result = total(a) + total(b);
  for (; i < size; ++i) result += static_cast<double>(x[i]) * y[i];
  return result;
}

double squares(const float* x, int64_t size, float factor) {
  const Vector factors = all(factor);
  Vector a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kWidth <= size; i += 2 * kWidth) {
    const Vector first = load(x + i) * factors, second = load(x + i + kWidth) * factors;
    a += first * first;
    b += second * second;
  }
  double result = total(a) + total(b);
  for (; i < size; ++i) result += static_cast<double>(x[i] * factor) * (x[i] * factor);
  return result;
}

void momentum(float* weight, float* moment, const float* gradient, int64_t size, MomentumStep step) {
  for (int64_t i = 0; i < size; ++i) {
    const float own = gradient[i] * step.factor + weight[i] * step.decay;
    const float moved = moment[i] * step.momentum + own;
    moment[i] = moved;
    weight[i] -= step.rate * (own * step.gradient_share + moved * step.moment_share);
  }
}

void rmsprop(float* weight, float* square, float* moment, const float* gradient, int64_t size, RmspropStep step) {
  for (int64_t i = 0; i < size; ++i) {
    const float own = gradient[i] * step.factor + weight[i] * step.decay;
    square[i] = (square[i] + step.shift) * step.alpha + own * own * (1 - step.alpha);
    moment[i] = moment[i] * step.momentum + step.rate * own / __builtin_sqrtf(square[i]);
    weight[i] -= moment[i];
  }
}

inline float direction_of(float weight, float* mean, float* square, float gradient, const AdamStep& step) {
  const float own = gradient * step.factor;
  *mean = *mean * step.beta1 + own * (1 - step.beta1);
  *square = *square * step.beta2 + own * own * (1 - step.beta2);
  return *mean / step.correction1 / (step.eps + __builtin_sqrtf(*square / step.correction2)) + weight * step.decay;
}

void adam(float* weight, float* mean, float* square, const float* gradient, int64_t size, AdamStep step) {
  for (int64_t i = 0; i < size; ++i) {
    weight[i] -= step.rate * direction_of(weight[i], mean + i, square + i, gradient[i], step);
  }
}

void adam_direction(float* direction, const float* weight, float* mean, float* square, const float* gradient,
                    int64_t size, AdamStep step) {
  for (int64_t i = 0; i < size; ++i) {
    direction[i] = direction_of(weight[i], mean + i, square + i, gradient[i], step);
  }
}

void descend(float* weight, const float* direction, int64_t size, float rate) {
  for (int64_t i = 0; i < size; ++i) weight[i] -= rate * direction[i];
}

void approach(float* y, const float* x, int64_t size, float share) {
  for (int64_t i = 0; i < size; ++i) y[i] += (x[i] - y[i]) * share;
}

void scale(float* y, const float* x, int64_t size, float factor) {
  for (int64_t i = 0; i < size; ++i) y[i] = x[i] * factor;
}

void moments(const float* x, int64_t size, double* result_sum, double* result_squares) {
  const double all_of_it = sum(x, size);
  const float mean = static_cast<float>(all_of_it / size);
  const Vector centre = all(mean);
  Vector a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kWidth <= size; i += 2 * kWidth) {
    const Vector first = load(x + i) - centre, second = load(x + i + kWidth) - centre;
    a += first * first;
    b += second * second;
  }
  double squares = total(a) + total(b);
  for (; i < size; ++i) squares += static_cast<double>(x[i] - mean) * (x[i] - mean);
  // `mean` is rounded: what that adds to the squares is taken off.
  const double rounding = all_of_it / size - mean;
  *result_sum = all_of_it;
  *result_squares = squares - rounding * rounding * size;
}

template <bool kRelu, bool kResidual>
void affine_loop(float* y, const float* x, const float* residual, int64_t size, Affine affine) {
  const Vector mean = all(affine.mean), scale = all(affine.scale), shift = all(affine.shift);
  int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) {
    Vector value = transform(load(x + i), mean, scale, shift);
    if (kRelu) value = relu(value);
    if (kResidual) value += load(residual + i);
    store(y + i, value);
  }
  if (i < size) {
    Vector value = transform(load_part(x + i, size - i), mean, scale, shift);
    if (kRelu) value = relu(value);
    if (kResidual) value += load_part(residual + i, size - i);
    store_part(y + i, value, size - i);
  }
}

void affine(float* y, const float* x, const float* residual, int64_t size, Affine affine) {
  const auto loop = residual ? affine.relu ? affine_loop<true, true> : affine_loop<false, true>
                    : affine.relu ? affine_loop<true, false>
                                  : affine_loop<false, false>;
  loop(y, x, residual, size, affine);
}

template <bool kRelu, bool kStore>
Sums norm_sums_loop(float* dz, const float* dy, const float* x, int64_t size, Affine affine) {
  const Vector mean = all(affine.mean), scale = all(affine.scale), shift = all(affine.shift);
  Vector gradient{}, products{};
  int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) {
    const Vector value = load(x + i);
    const Vector passed = through<kRelu>(load(dy + i), value, mean, scale, shift);
    if (kStore) store(dz + i, passed);
    gradient += passed;
    products += passed * (value - mean);
  }
  if (i < size) {
    const Vector value = load_part(x + i, size - i);
    Vector passed = through<kRelu>(load_part(dy + i, size - i), value, mean, scale, shift);
    for (int64_t j = size - i; j < kWidth; ++j) passed[j] = 0;
    if (kStore) store_part(dz + i, passed, size - i);
    gradient += passed;
    products += passed * (value - mean);
  }
  return {total(gradient), total(products)};
}

Sums norm_sums(float* dz, const float* dy, const float* x, int64_t size, Affine affine) {
  if (dz) {
    return affine.relu ? norm_sums_loop<true, true>(dz, dy, x, size, affine)
                       : norm_sums_loop<false, true>(dz, dy, x, size, affine);
  }
  return affine.relu ? norm_sums_loop<true, false>(dz, dy, x, size, affine)
                     : norm_sums_loop<false, false>(dz, dy, x, size, affine);
}

template <bool kRelu>
void norm_gradient_loop(float* dx, const float* dy, const float* x, int64_t size, Affine affine,
                        float factor, float dz_mean, float slope) {
  const Vector mean = all(affine.mean), scale = all(affine.scale), shift = all(affine.shift);
  const Vector factors = all(factor), means = all(dz_mean), slopes = all(slope);
  int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) {
    const Vector value = load(x + i);
    const Vector passed = through<kRelu>(load(dy + i), value, mean, scale, shift);
    store(dx + i, factors * (passed - means - (value - mean) * slopes));
  }
  if (i < size) {
    const Vector value = load_part(x + i, size - i);
    const Vector passed = through<kRelu>(load_part(dy + i, size - i), value, mean, scale, shift);
    store_part(dx + i, factors * (passed - means - (value - mean) * slopes), size - i);
  }
}

void norm_gradient(float* dx, const float* dy, const float* x, int64_t size, Affine affine,
                   float factor, float dz_mean, float slope) {
  if (affine.relu) {
    norm_gradient_loop<true>(dx, dy, x, size, affine, factor, dz_mean, slope);
  } else {
    norm_gradient_loop<false>(dx, dy, x, size, affine, factor, dz_mean, slope);
  }
}

void add(float* y, const float* x, int64_t size) {
  for (int64_t i = 0; i < size; ++i) y[i] += x[i];
}

// kVectors vectors of one row: each weight is loaded once for all of them.
template <int kVectors>
inline void correlate_block(float* out, const float* in, Taps taps) {
  Vector sums[kVectors] = {};
  for (int t = 0; t < taps.count; ++t) {
    const Vector weight = all(taps.weight[t]);
    const float* from = in + taps.offset[t];
    for (int v = 0; v < kVectors; ++v) sums[v] += weight * load(from + v * kWidth);
  }
  for (int v = 0; v < kVectors; ++v) store(out + v * kWidth, sums[v]);
}

void correlate(float* out, int64_t rows, int64_t columns, const float* in, int64_t in_stride, Taps taps) {
  for (int64_t row = 0; row < rows; ++row) {
    int64_t column = 0;
    for (; column + 3 * kWidth < columns; column += 4 * kWidth) {
      correlate_block<4>(out + column, in + column, taps);
    }
    if (column + kWidth < columns) {
      correlate_block<2>(out + column, in + column, taps);
      column += 2 * kWidth;
    }
    if (column < columns) correlate_block<1>(out + column, in + column, taps);
    out += columns;
    in += in_stride;
  }
}

// kTaps sums at once: as many as there are registers for.
template <int kTaps>
void correlate_gradient_taps(double* sums, const float* gradient, int64_t gradient_stride, int64_t rows,
                             int64_t columns, const float* in, int64_t in_stride, const int64_t* offset) {
  Vector result[kTaps];
  for (int t = 0; t < kTaps; ++t) result[t] = Vector{};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += kWidth) {
      const Vector value = load(gradient + column);
      for (int t = 0; t < kTaps; ++t) result[t] += value * load(in + column + offset[t]);
    }
    gradient += gradient_stride;
    in += in_stride;
  }
  for (int t = 0; t < kTaps; ++t) sums[t] += total(result[t]);
}

void correlate_gradient(double* sums, const float* gradient, int64_t gradient_stride, int64_t rows, int64_t columns,
                        const float* in, int64_t in_stride, Taps taps) {
  for (int t = 0; t < taps.count;) {
    const int left = taps.count - t;
    const auto loop = left >= 25 || left == 13 ? correlate_gradient_taps<13>
                      : left >= 12             ? correlate_gradient_taps<12>
                      : left >= 9              ? correlate_gradient_taps<9>
                      : left >= 5              ? correlate_gradient_taps<5>
                      : left >= 3              ? correlate_gradient_taps<3>
                                               : correlate_gradient_taps<1>;
    loop(sums + t, gradient, gradient_stride, rows, columns, in, in_stride, taps.offset + t);
    t += left >= 25 || left == 13 ? 13 : left >= 12 ? 12 : left >= 9 ? 9 : left >= 5 ? 5 : left >= 3 ? 3 : 1;
  }
}

void drop(float* y, const float* x, int64_t size, uint32_t first, uint32_t key, float rate, float keep) {
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits = (first + static_cast<uint32_t>(i)) * 0x9E3779B9u + key;
    bits = (bits ^ bits >> 16) * 0x7FEB352Du;
    bits = (bits ^ bits >> 15) * 0x846CA68Bu;
    bits ^= bits >> 16;
    const float uniform = static_cast<float>(static_cast<int32_t>(bits & 0xFFFFFF)) * (1.0f / (1 << 24));
    y[i] = x[i] * (uniform >= rate ? 1.0f : 0.0f) / keep;
  }
}

void range(const float* x, int64_t size, float* lowest, float* highest) {
  float low = x[0], high = x[0];
  int64_t i = 0;
  if (size >= kWidth) {
    Vector lows = load(x), highs = lows;
    for (; i + kWidth <= size; i += kWidth) {
      const Vector value = load(x + i);
      lows = value < lows ? value : lows;
      highs = value > highs ? value : highs;
    }
    for (int l = 0; l < kWidth; ++l) {
      low = lows[l] < low ? lows[l] : low;
      high = highs[l] > high ? highs[l] : high;
    }
  }
  for (; i < size; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  *lowest = low;
  *highest = high;
}

// The level of a value, not beyond one more than there are at either end. What is not a number stays that.
inline float level_of(float x, const Levels& levels) {
  const float least = levels.lowest - 1, most = levels.highest + 1;
  float level = x / levels.scale;
  level = level < least ? least : level;
  level = level > most ? most : level;
  // Adding and taking away 1.5 * 2^23 rounds halves to the even number.
  return level + 12582912.0f - 12582912.0f;
}

void quantize(float* y, const float* x, int64_t size, Levels levels) {
  for (int64_t i = 0; i < size; ++i) {
    float level = level_of(x[i], levels);
    level = level < levels.lowest ? levels.lowest : level;
    level = level > levels.highest ? levels.highest : level;
    y[i] = level * levels.scale;
  }
}

void quantize_gradient(float* dx, const float* dy, const float* x, int64_t size, Levels levels) {
  for (int64_t i = 0; i < size; ++i) {
    const float level = level_of(x[i], levels);
    dx[i] = level < levels.lowest || level > levels.highest ? 0.0f : dy[i];
  }
}

#if GHOSTNET_WIDTH == 8 && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define GHOSTNET_TRANSPOSES
#endif
#endif

#ifdef GHOSTNET_TRANSPOSES
// Rows of eight vectors -> columns: single elements of neighbours side by side, then pairs, then halves.
inline void transpose(Vector* v) {
  Vector pairs[8], fours[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      fours[i + 2 * j] = __builtin_shufflevector(pairs[i + j], pairs[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      fours[i + 2 * j + 1] = __builtin_shufflevector(pairs[i + j], pairs[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = __builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[i + 4] = __builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
#endif

void interleave(float* to, const float* const* rows, int64_t count) {
  int64_t i = 0;
#ifdef GHOSTNET_TRANSPOSES
  static_assert(kTogether == kWidth, "as many rows as a vector has elements");
  for (; i + kWidth <= count; i += kWidth) {
    Vector values[kTogether];
    for (int l = 0; l < kTogether; ++l) values[l] = load(rows[l] + i);
    transpose(values);
    for (int l = 0; l < kTogether; ++l) store(to + (i + l) * kTogether, values[l]);
  }
#endif
  for (; i < count; ++i) {
    for (int l = 0; l < kTogether; ++l) to[i * kTogether + l] = rows[l][i];
  }
}

void separate(float* const* rows, const float* from, int64_t count) {
  int64_t i = 0;
#ifdef GHOSTNET_TRANSPOSES
  for (; i + kWidth <= count; i += kWidth) {
    Vector values[kTogether];
    for (int l = 0; l < kTogether; ++l) values[l] = load(from + (i + l) * kTogether);
    transpose(values);
    for (int l = 0; l < kTogether; ++l) store(rows[l] + i, values[l]);
  }
#endif
  for (; i < count; ++i) {
    for (int l = 0; l < kTogether; ++l) rows[l][i] = from[i * kTogether + l];
  }
}

template <int kVectors>
inline void combine_block(float* y, const float* x, Taps taps) {
  Vector sums[kVectors];
  for (int v = 0; v < kVectors; ++v) sums[v] = Vector{};
  for (int t = 0; t < taps.count; ++t) {
    const Vector weight = all(taps.weight[t]);
    const float* from = x + taps.offset[t];
    for (int v = 0; v < kVectors; ++v) sums[v] += weight * load(from + v * kWidth);
  }
  for (int v = 0; v < kVectors; ++v) store(y + v * kWidth, sums[v]);
}

void combine(float* y, const float* x, int64_t size, Taps taps) {
  int64_t i = 0;
  for (; i + 4 * kWidth <= size; i += 4 * kWidth) combine_block<4>(y + i, x + i, taps);
  for (; i + kWidth <= size; i += kWidth) combine_block<1>(y + i, x + i, taps);
  if (i == size) return;
  Vector sum{};
  for (int t = 0; t < taps.count; ++t) sum += all(taps.weight[t]) * load_part(x + taps.offset[t] + i, size - i);
  store_part(y + i, sum, size - i);
}

inline Vector clipped_below(Vector x, float least) { return x < all(least) ? all(least) : x; }

// ln x for x from 1 on, from polynomials of the rest that a power of two leaves (Cephes, by S. Moshier).
inline Vector logarithm_of(Vector x) {
  // x = 2^power * rest, with the rest between sqrt(1/2) and sqrt(2).
  const Bits bits = (Bits)x, whole = (bits - (Bits)all(0.70710678f)) >> 23;
  const Vector rest = (Vector)(bits - (whole << 23)) - all(1.0f);
  const Vector power = __builtin_convertvector((Integers)whole, Vector);
  const Vector square = rest * rest;
  static constexpr float kFactors[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                       -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                       2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  Vector sum{};
  for (int i = 0; i < 9; ++i) sum = sum * rest + all(kFactors[i]);
  sum = sum * rest * square + power * all(-2.12194440e-4f) - all(0.5f) * square;
  const Vector result = rest + sum + power * all(0.693359375f);
  return x == x ? result : x;
}

void logarithm(float* y, const float* x, int64_t size) {
  int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) store(y + i, logarithm_of(load(x + i)));
  if (i < size) store_part(y + i, logarithm_of(load_part(x + i, size - i)), size - i);
}

// Row by row to begin with: values of one column that lie a power of two apart would push each other out of the cache.
void soft_max(float* top, float* total, float* to, int64_t to_row, const float* x, int64_t row, int64_t rows,
              int64_t count) {
  for (int64_t r = 0; r < rows; ++r, x += row) {
    float* copy = to + r * to_row;
    for (int64_t i = 0; i < count; ++i) copy[i] = x[i];
    if (r == 0) {
      for (int64_t i = 0; i < count; ++i) top[i] = x[i];
    } else {
      for (int64_t i = 0; i < count; ++i) top[i] = x[i] > top[i] ? x[i] : top[i];
    }
  }
  for (int64_t i = 0; i < count; i += kWidth) {
    const Vector largest = load(top + i);
    Vector sum{};
    for (int64_t r = 0; r < rows; ++r) {
      float* value = to + r * to_row + i;
      const Vector power = exponential<Vector, Bits>(load(value) - largest);
      sum += power;
      store(value, power);
    }
    store(total + i, sum);
  }
}

void stretch_part(float* out, const float* in, const Resampling& columns, int64_t first, int64_t end) {
  for (int64_t o = first; o < end; ++o) {
    out[o] = columns.near[o] * in[columns.first[o]] + columns.far[o] * in[columns.second[o]];
  }
}

// kFactor outputs of each input, an even number; all inputs but those at the ends give the same weights.
template <int kFactor>
void stretch_by(float* out, const float* in, const Resampling& columns) {
  constexpr int kHalf = kFactor / 2;
  stretch_part(out, in, columns, 0, kHalf);
  float near[kFactor], far[kFactor];
  for (int j = 0; j < kFactor; ++j) {
    near[j] = columns.near[kHalf + j];
    far[j] = columns.far[kHalf + j];
  }
  float* to = out + kHalf;
  for (int64_t i = 0; i + 1 < columns.inputs; ++i) {
    for (int j = 0; j < kFactor; ++j) to[i * kFactor + j] = near[j] * in[i] + far[j] * in[i + 1];
  }
  stretch_part(out, in, columns, columns.outputs - kHalf, columns.outputs);
}

void stretch(float* out, const float* in, const Resampling& columns) {
  if (columns.inputs > 1 && columns.factor == 2) return stretch_by<2>(out, in, columns);
  if (columns.inputs > 1 && columns.factor == 4) return stretch_by<4>(out, in, columns);
  if (columns.inputs > 1 && columns.factor == 8) return stretch_by<8>(out, in, columns);
  stretch_part(out, in, columns, 0, columns.outputs);
}

void shrink_part(float* d_in, const float* d_out, const Resampling& columns, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const float* from = d_out + columns.begin[i];
    const float* shares = columns.shares + columns.start[i];
    const int64_t count = columns.start[i + 1] - columns.start[i];
    float sum = 0;
    for (int64_t j = 0; j < count; ++j) sum += shares[j] * from[j];
    d_in[i] = sum;
  }
}

template <int kFactor>
void shrink_by(float* d_in, const float* d_out, const Resampling& columns) {
  shrink_part(d_in, d_out, columns, 0, 1);
  float shares[2 * kFactor];
  for (int j = 0; j < 2 * kFactor; ++j) shares[j] = columns.shares[columns.start[1] + j];
  const float* from = d_out - kFactor / 2;
  for (int64_t i = 1; i + 1 < columns.inputs; ++i) {
    float sum = 0;
    for (int j = 0; j < 2 * kFactor; ++j) sum += shares[j] * from[i * kFactor + j];
    d_in[i] = sum;
  }
  shrink_part(d_in, d_out, columns, columns.inputs - 1, columns.inputs);
}

void shrink(float* d_in, const float* d_out, const Resampling& columns) {
  if (columns.inputs > 2 && columns.factor == 2) return shrink_by<2>(d_in, d_out, columns);
  if (columns.inputs > 2 && columns.factor == 4) return shrink_by<4>(d_in, d_out, columns);
  if (columns.inputs > 2 && columns.factor == 8) return shrink_by<8>(d_in, d_out, columns);
  shrink_part(d_in, d_out, columns, 0, columns.inputs);
}

// A vector of one or two pixels of kTogether samples. As an argument of a template it would lose its alignment: their number is.
template <int kPixels>
struct Pixels {
  typedef float Vector __attribute__((vector_size(kPixels * kTogether * 4), aligned(4), may_alias));

  static const Vector& at(const float* x) { return *reinterpret_cast<const Vector*>(x); }
  static Vector& at(float* x) { return *reinterpret_cast<Vector*>(x); }
};

typedef Pixels<1>::Vector Pixel;

inline const Pixel& pixel(const float* x) { return Pixels<1>::at(x); }
inline Pixel& pixel(float* x) { return Pixels<1>::at(x); }

// As many of them as a vector of the instruction set holds.
constexpr int kPixelsOfVector = GHOSTNET_PIXELS;

constexpr Blocking kAtOnce = kPixelsOfVector == 1 ? Blocking{3, 3, 4} : Blocking{8, 4, 8};
static_assert(kTogether % kAtOnce.multiply_outs == 0, "the outputs of a product lie side by side");

// kVectors of kPixels each. kWidth: the kernel's width, where that is known; else 0.
template <int kPixels, int kVectors, int kOuts, int kWidth>
void window_of(float* out, int64_t out_plane, const float* in, const float* weights, const Window& window) {
  using Values = Pixels<kPixels>;
  constexpr int kStep = kPixels * kTogether;
  typename Values::Vector sums[kOuts][kVectors];
  for (int o = 0; o < kOuts; ++o) {
    for (int v = 0; v < kVectors; ++v) sums[o][v] = typename Values::Vector{};
  }
  const int64_t width = kWidth > 0 ? kWidth : window.kernel_width;
  for (int64_t channel = 0; channel < window.channels; ++channel) {
    const float* row = in;
    for (int64_t y = 0; y < window.kernel_height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        for (int v = 0; v < kVectors; ++v) {
          const typename Values::Vector value = Values::at(row + x * kTogether + v * kStep);
          for (int o = 0; o < kOuts; ++o) sums[o][v] += weights[x * kOuts + o] * value;
        }
      }
      row += window.row;
      weights += width * kOuts;
    }
    in += window.plane;
  }
  for (int o = 0; o < kOuts; ++o) {
    for (int v = 0; v < kVectors; ++v) Values::at(out + o * out_plane + v * kStep) = sums[o][v];
  }
}

using WindowLoop = void (*)(float*, int64_t, const float*, const float*, const Window&);

// The loop for so many pixels and outputs, kOuts at most.
template <int kOuts, int kWidth>
WindowLoop window_loop(int pixels, int outs) {
  if constexpr (kOuts > 1) {
    if (outs < kOuts) return window_loop<kOuts - 1, kWidth>(pixels, outs);
  }
  static_assert(kWindowPixels == 4 && kWindowPixels % kPixelsOfVector == 0, "pixels make whole vectors");
  static constexpr WindowLoop kLoops[kWindowPixels] = {
      window_of<1, 1, kOuts, kWidth>, window_of<1, 2, kOuts, kWidth>, window_of<1, 3, kOuts, kWidth>,
      window_of<kPixelsOfVector, kWindowPixels / kPixelsOfVector, kOuts, kWidth>};
  return kLoops[pixels - 1];
}

void window(float* out, int64_t out_plane, const float* in, const float* weights, const Window& window, int pixels,
            int outs) {
  const auto loop = window.kernel_width == 3   ? window_loop<kAtOnce.window_outs, 3>
                    : window.kernel_width == 1 ? window_loop<kAtOnce.window_outs, 1>
                                               : window_loop<kAtOnce.window_outs, 0>;
  loop(pixels, outs)(out, out_plane, in, weights, window);
}

// One row or column of a patch's left sides of Winograd's products.
inline void left_sides(Pixel* to, const Pixel* from) {
  const Pixel near = from[4] - 2 * from[2], odd_near = kNear * from[3] - kFar * from[1];
  const Pixel far = from[4] - 0.5f * from[2], odd_far = kFar * from[3] - kNear * from[1];
  to[0] = from[0] - 2.5f * from[2] + from[4];
  to[1] = near + odd_near;
  to[2] = near - odd_near;
  to[3] = far + odd_far;
  to[4] = far - odd_far;
  to[5] = from[1] - 2.5f * from[3] + from[5];
}

// Both directions of a patch of kFrom x kFrom pixels: `line` makes one row or column of the products' sides.
template <int kFrom, void (*line)(Pixel*, const Pixel*)>
void to_sides(float* to, int64_t step, const float* in, int64_t row) {
  Pixel rows[kFrom][kPatchInputs], from[kFrom], sides[kPatchInputs];
  for (int y = 0; y < kFrom; ++y) {
    for (int x = 0; x < kFrom; ++x) from[x] = pixel(in + y * row + x * kTogether);
    line(rows[y], from);
  }
  for (int x = 0; x < kPatchInputs; ++x) {
    for (int y = 0; y < kFrom; ++y) from[y] = rows[y][x];
    line(sides, from);
    for (int y = 0; y < kPatchInputs; ++y) pixel(to + (y * kPatchInputs + x) * step) = sides[y];
  }
}

// One row or column of a patch's results.
inline void results(Pixel* to, const Pixel* from) {
  const Pixel near = from[1] + from[2], odd_near = kNear * (from[1] - from[2]);
  const Pixel far = from[3] + from[4], odd_far = kFar * (from[3] - from[4]);
  to[0] = from[0] + near + far;
  to[1] = odd_near + odd_far;
  to[2] = 0.5f * near + 2 * far;
  to[3] = 0.5f * odd_near + 2 * odd_far + from[5];
}

void from_products(float* out, int64_t row, const float* from, int64_t step, int rows, int columns) {
  Pixel sums[kPatch][kPatchInputs], line[kPatchInputs], found[kPatch];
  for (int x = 0; x < kPatchInputs; ++x) {
    for (int y = 0; y < kPatchInputs; ++y) line[y] = pixel(from + (y * kPatchInputs + x) * step);
    results(found, line);
    for (int y = 0; y < kPatch; ++y) sums[y][x] = found[y];
  }
  for (int y = 0; y < rows; ++y) {
    results(found, sums[y]);
    for (int x = 0; x < kPatch; ++x) {
      if (x < columns) pixel(out + y * row + x * kTogether) = found[x];
    }
  }
}

// `results`, the other way.
inline void gradients_of_sums(Pixel* to, const Pixel* from) {
  const Pixel near = from[0] + 0.5f * from[2], odd_near = kNear * (from[1] + 0.5f * from[3]);
  const Pixel far = from[0] + 2 * from[2], odd_far = kFar * (from[1] + 2 * from[3]);
  to[0] = from[0];
  to[1] = near + odd_near;
  to[2] = near - odd_near;
  to[3] = far + odd_far;
  to[4] = far - odd_far;
  to[5] = from[3];
}

// Loads one pixel, or two that lie `plane` elements apart.
inline void load_apart(Pixel* to, const float* x, int64_t) { *to = pixel(x); }
#if GHOSTNET_PIXELS == 2
inline void load_apart(Pixels<2>::Vector* to, const float* x, int64_t plane) {
  const __m512d first = _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(x)));
  const __m256d second = _mm256_castps_pd(_mm256_loadu_ps(x + plane));
  *to = (Pixels<2>::Vector)_mm512_insertf64x4(first, second, 1);
}
#endif

template <int kPixels, int kVectors, int kOuts>
void multiply_of(float* sums, int64_t sums_row, const float* gradients, const float* in, int64_t plane, int64_t count) {
  using Values = Pixels<kPixels>;
  constexpr int kStep = kPixels * kTogether;
  typename Values::Vector result[kOuts][kVectors];
  for (int o = 0; o < kOuts; ++o) {
    for (int v = 0; v < kVectors; ++v) result[o][v] = typename Values::Vector{};
  }
  for (int64_t at = 0; at < count * kTogether; at += kTogether) {
    typename Values::Vector values[kVectors];
    for (int v = 0; v < kVectors; ++v) load_apart(values + v, in + v * kPixels * plane + at, plane);
    for (int o = 0; o < kOuts; ++o) {
      for (int v = 0; v < kVectors; ++v) result[o][v] += gradients[at + o] * values[v];
    }
  }
  for (int o = 0; o < kOuts; ++o) {
    for (int v = 0; v < kVectors; ++v) Values::at(sums + o * sums_row + v * kStep) += result[o][v];
  }
}

using MultiplyLoop = void (*)(float*, int64_t, const float*, const float*, int64_t, int64_t);

// The loop for so many vectors of kPixels, and so many outputs: kVectors and kOuts at most.
template <int kPixels, int kVectors, int kOuts>
MultiplyLoop multiply_loop(int vectors, int outs) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) return multiply_loop<kPixels, kVectors - 1, kOuts>(vectors, outs);
  }
  if constexpr (kOuts > 1) {
    if (outs < kOuts) return multiply_loop<kPixels, kVectors, kOuts - 1>(vectors, outs);
  }
  return multiply_of<kPixels, kVectors, kOuts>;
}

void multiply(float* sums, int64_t sums_row, const float* gradients, const float* in, int64_t plane, int64_t count,
              int vectors, int outs) {
  const int whole = vectors / kPixelsOfVector, done = whole * kPixelsOfVector;
  if (whole > 0) {
    const auto loop = multiply_loop<kPixelsOfVector, kAtOnce.multiply_vectors / kPixelsOfVector, kAtOnce.multiply_outs>;
    loop(whole, outs)(sums, sums_row, gradients, in, plane, count);
  }
  if (done < vectors) {
    const auto loop = multiply_loop<1, 1, kAtOnce.multiply_outs>;
    loop(1, outs)(sums + done * kTogether, sums_row, gradients, in + done * plane, plane, count);
  }
}

template <int kTaps, int kOuts>
void window_gradient_of(float* sums, const float* gradient, const float* in, const GradientWindow& window) {
  Pixel result[kTaps][kOuts];
  for (int t = 0; t < kTaps; ++t) {
    for (int o = 0; o < kOuts; ++o) result[t][o] = Pixel{};
  }
  for (int64_t row = 0; row < window.rows; ++row) {
    for (int64_t column = 0; column < window.columns * kTogether; column += kTogether) {
      for (int o = 0; o < kOuts; ++o) {
        const Pixel value = pixel(gradient + o * window.plane + column);
        for (int t = 0; t < kTaps; ++t) result[t][o] += value * pixel(in + column + t * kTogether);
      }
    }
    gradient += window.row;
    in += window.in_row;
  }
  for (int t = 0; t < kTaps; ++t) {
    for (int o = 0; o < kOuts; ++o) pixel(sums + (t * kOuts + o) * kTogether) += result[t][o];
  }
}

void window_gradient(float* sums, const float* gradient, const float* in, const GradientWindow& window, int taps,
                     int outs) {
  static constexpr decltype(&window_gradient_of<1, 1>) kLoops[kGradientTaps][kGradientOuts] = {
      {window_gradient_of<1, 1>, window_gradient_of<1, 2>, window_gradient_of<1, 3>, window_gradient_of<1, 4>},
      {window_gradient_of<2, 1>, window_gradient_of<2, 2>, window_gradient_of<2, 3>, window_gradient_of<2, 4>},
      {window_gradient_of<3, 1>, window_gradient_of<3, 2>, window_gradient_of<3, 3>, window_gradient_of<3, 4>}};
  kLoops[taps - 1][outs - 1](sums, gradient, in, window);
}

}  // namespace

extern const Kernels GHOSTNET_KERNELS;
const Kernels GHOSTNET_KERNELS = {GHOSTNET_NAME, kAtOnce,       moments,       sum, product,   scale,
                                  affine,        norm_sums,     norm_gradient, add, correlate,
                                  correlate_gradient, window, to_sides<kPatchInputs, left_sides>, from_products,
                                  to_sides<kPatch, gradients_of_sums>, multiply, window_gradient, squares, momentum,
                                  rmsprop, adam, adam_direction, descend, approach, drop, interleave, separate, combine, soft_max, logarithm, range, quantize,
                                  quantize_gradient, stretch, shrink};

}  // namespace ghostnet
