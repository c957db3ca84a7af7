// Compiled once for each instruction set: GHOSTNET_PLAN_KERNELS names the table that results, GHOSTNET_VECTOR is the number
// of floats in a vector. As in kernels.cpp, nothing here may instantiate what other files share.
#include "plan_kernels.h"

#include "exponential.h"

#if GHOSTNET_VECTOR == 16
#include <immintrin.h>
#endif

namespace ghostnet {
namespace {

constexpr int kVector = GHOSTNET_VECTOR;
constexpr int kShort = kVector < kLanes ? kVector : kLanes;  // of one pixel
constexpr int kTileVectors = 2;
constexpr int kTilePixels = kVector == 16 ? 14 : 6;
constexpr int kRowVectors = 8;  // of a depthwise convolution at once

typedef float Vector __attribute__((vector_size(kVector * 4)));
typedef float Short __attribute__((vector_size(kShort * 4)));

template <typename V>
constexpr int lanes_of() {
  return sizeof(V) / sizeof(float);
}

template <typename V>
struct Integers {
  typedef uint32_t Type __attribute__((vector_size(sizeof(V))));
};

// A number as a type.
template <int kValue>
struct Count {
  static constexpr int value = kValue;
};

// A type loses its attributes as an argument of a template: a pointer to it would promise too much of an address.
template <typename V>
inline V load(const float* x) {
  V value;
  __builtin_memcpy(&value, x, sizeof(V));
  return value;
}
template <typename V>
inline void store(float* y, V value) {
  __builtin_memcpy(y, &value, sizeof(V));
}
template <typename V>
inline V all(float value) {
  return value - V{};
}

// NaN stays NaN: a network that diverged has to be seen.
template <typename V>
inline V activated(V x, Activation activation) {
  const V zero{};
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x < zero ? zero : x;
    case Activation::kHardSigmoid: {
      const V six = all<V>(6.0f);
      x += all<V>(3.0f);
      x = x < zero ? zero : x;
      x = x > six ? six : x;
      return x * all<V>(1.0f / 6.0f);
    }
    case Activation::kSigmoid: {
      const V most = all<V>(87.0f);
      V power = -x;
      power = power > most ? most : power;
      return all<V>(1.0f) / (all<V>(1.0f) + exponential<V, typename Integers<V>::Type>(power));
    }
  }
  return x;
}

// A vector of channels of one pixel, from and to blocks that are `plane` values apart; `blocks` of them are there.
#if GHOSTNET_VECTOR == 16
inline Vector read(const float* x, int64_t plane, int vector, int blocks) {
  const __m256 low = _mm256_loadu_ps(x + 2 * vector * plane);
  const __m256 high = 2 * vector + 1 < blocks ? _mm256_loadu_ps(x + (2 * vector + 1) * plane) : _mm256_setzero_ps();
  return (Vector)_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(low)), _mm256_castps_pd(high), 1);
}
inline void write(float* y, int64_t plane, int vector, int blocks, Vector value) {
  _mm256_storeu_ps(y + 2 * vector * plane, _mm512_castps512_ps256((__m512)value));
  if (2 * vector + 1 < blocks) {
    _mm256_storeu_ps(y + (2 * vector + 1) * plane, _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)value, 1)));
  }
}
#else
inline int64_t place(int64_t plane, int vector) {
  return vector * kVector / kLanes * plane + vector * kVector % kLanes;
}
inline Vector read(const float* x, int64_t plane, int vector, int) { return load<Vector>(x + place(plane, vector)); }
inline void write(float* y, int64_t plane, int vector, int, Vector value) { store(y + place(plane, vector), value); }
#endif

template <int kPixels, int kVectors, int kStep>
void tile(const Panel& panel, int64_t first) {
  Vector sums[kPixels][kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const Vector bias = load<Vector>(panel.bias + v * kVector);
    for (int p = 0; p < kPixels; ++p) sums[p][v] = bias;
  }
  const float* in = panel.in + first * kStep;
  const float* weights = panel.weights;
  for (int64_t t = 0; t < panel.count; ++t, weights += kVectors * kVector) {
    const float* from = in + panel.taps[t];
    Vector weight[kVectors];
    for (int v = 0; v < kVectors; ++v) weight[v] = load<Vector>(weights + v * kVector);
    for (int p = 0; p < kPixels; ++p) {
      const Vector value = all<Vector>(from[p * kStep]);
      for (int v = 0; v < kVectors; ++v) sums[p][v] += value * weight[v];
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    const int64_t at = (first + p) * kLanes;
    for (int v = 0; v < kVectors; ++v) {
      Vector value = sums[p][v];
      if (panel.other) value += read(panel.other + at, panel.other_plane, v, panel.blocks);
      write(panel.out + at, panel.out_plane, v, panel.blocks, activated(value, panel.activation));
    }
  }
}

template <int kVectors, int kStep>
void tiles(const Panel& panel) {
  int64_t p = 0;
  for (; p + kTilePixels <= panel.pixels; p += kTilePixels) tile<kTilePixels, kVectors, kStep>(panel, p);
  if (kTilePixels > 7 && p + 7 <= panel.pixels) {
    tile<7, kVectors, kStep>(panel, p);
    p += 7;
  }
  for (; p + 4 <= panel.pixels; p += 4) tile<4, kVectors, kStep>(panel, p);
  for (; p + 2 <= panel.pixels; p += 2) tile<2, kVectors, kStep>(panel, p);
  for (; p < panel.pixels; ++p) tile<1, kVectors, kStep>(panel, p);
}

template <int kStep>
void by_vectors(const Panel& panel) {
  if (panel.blocks * kLanes > kVector) {
    tiles<kTileVectors, kStep>(panel);
  } else {
    tiles<1, kStep>(panel);
  }
}

void convolve(const Panel& panel) {
  switch (panel.step) {
    case 1: return by_vectors<1>(panel);
    case 2: return by_vectors<2>(panel);
    case kLanes: return by_vectors<kLanes>(panel);
    default: return by_vectors<2 * kLanes>(panel);
  }
}

void finish(const Panel& panel, const float* sums, int64_t row, int64_t first, int64_t pixels) {
  for (int v = 0; v * kVector < panel.blocks * kLanes; ++v) {
    const Vector bias = load<Vector>(panel.bias + v * kVector);
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t at = (first + p) * kLanes;
      Vector value = load<Vector>(sums + p * row + v * kVector) + bias;
      if (panel.other) value += read(panel.other + at, panel.other_plane, v, panel.blocks);
      write(panel.out + at, panel.out_plane, v, panel.blocks, activated(value, panel.activation));
    }
  }
}

// kCount vectors of one row of a depthwise convolution. A kernel's size or stride of 0 is not known at compile time.
template <int kHeight, int kWidth, int kStride, int kCount, typename V>
inline void depthwise_vectors(const DepthwiseRows& rows, const float* in, int64_t row, int64_t at, int part) {
  constexpr int kStepOut = lanes_of<V>() > kLanes ? lanes_of<V>() : kLanes;
  const int height = kHeight ? kHeight : rows.kernel_height, width = kWidth ? kWidth : rows.kernel_width;
  const int step = lanes_of<V>() > kLanes ? lanes_of<V>() : kLanes * (kStride ? kStride : rows.stride);
  V sums[kCount];
  const V bias = load<V>(rows.bias + part);
  for (int i = 0; i < kCount; ++i) sums[i] = bias;
  const float* weights = rows.weights + part;
  for (int y = 0; y < height; ++y, in += row) {
    for (int x = 0; x < width; ++x, weights += kTapLanes) {
      const V weight = load<V>(weights);
      const float* from = in + x * kLanes;
      for (int i = 0; i < kCount; ++i) sums[i] += load<V>(from + i * step) * weight;
    }
  }
  for (int i = 0; i < kCount; ++i) {
    const int64_t to = at + i * kStepOut;
    if (rows.other) sums[i] += load<V>(rows.other + to);
    store(rows.out + to, activated(sums[i], rows.activation));
  }
}

// Vectors of two pixels, where there are such, are for a stride of 1.
template <int kHeight, int kWidth, int kStride, typename V>
void depthwise_row(const DepthwiseRows& rows, const float* in, int64_t row, int64_t at) {
  constexpr int kPixels = lanes_of<V>() > kLanes ? lanes_of<V>() / kLanes : 1;
  const int64_t stride = (kStride ? kStride : rows.stride) * kLanes;
  for (int part = 0; part < kLanes; part += lanes_of<V>()) {
    int64_t x = 0;
    const auto many = [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      for (; x + kCount * kPixels <= rows.columns; x += kCount * kPixels) {
        depthwise_vectors<kHeight, kWidth, kStride, kCount, V>(rows, in + part + x * stride, row, at + part + x * kLanes,
                                                               part);
      }
    };
    many(Count<kRowVectors>{});
    many(Count<4>{});
    many(Count<2>{});
    many(Count<1>{});
    for (; x < rows.columns; ++x) {
      depthwise_vectors<kHeight, kWidth, kStride, 1, Short>(rows, in + x * stride, row, at + x * kLanes, 0);
    }
  }
}

// The rows of the input that are needed, with zeros around them, one after the other in `scratch`.
void pad(const DepthwiseRows& rows) {
  const int64_t row = rows.padded_row();
  const int64_t top = rows.first * rows.stride - rows.pad_height;
  const int64_t count = (rows.end - rows.first - 1) * rows.stride + rows.kernel_height;
  const int64_t left = static_cast<int64_t>(rows.pad_width) * kLanes;
  int64_t inside = rows.width * kLanes;
  if (inside > row - left) inside = row - left;
  float* to = rows.scratch;
  for (int64_t y = top; y < top + count; ++y, to += row) {
    if (y < 0 || y >= rows.height) {
      for (int64_t i = 0; i < row; i += kShort) store(to + i, Short{});
      continue;
    }
    const float* from = rows.in + y * rows.width * kLanes;
    for (int64_t i = 0; i < left; i += kShort) store(to + i, Short{});
    for (int64_t i = 0; i < inside; i += kShort) store(to + left + i, load<Short>(from + i));
    for (int64_t i = left + inside; i < row; i += kShort) store(to + i, Short{});
  }
}

template <int kHeight, int kWidth, int kStride, typename V>
void depthwise_rows(const DepthwiseRows& rows) {
  const int64_t row = rows.padded_row();
  for (int64_t y = rows.first; y < rows.end; ++y) {
    depthwise_row<kHeight, kWidth, kStride, V>(rows, rows.scratch + (y - rows.first) * rows.stride * row, row,
                                               y * rows.columns * kLanes);
  }
}

void depthwise(const DepthwiseRows& rows) {
  pad(rows);
  const int kind = rows.kernel_height * 100 + rows.kernel_width * 10 + rows.stride;
  switch (kind) {
    case 331: return depthwise_rows<3, 3, 1, Vector>(rows);
    case 332: return depthwise_rows<3, 3, 2, Short>(rows);
    case 551: return depthwise_rows<5, 5, 1, Vector>(rows);
    case 552: return depthwise_rows<5, 5, 2, Short>(rows);
    case 151: return depthwise_rows<1, 5, 1, Vector>(rows);
    case 511: return depthwise_rows<5, 1, 1, Vector>(rows);
    default: return depthwise_rows<0, 0, 0, Short>(rows);
  }
}

void means(float* means, const float* x, int64_t pixels) {
  for (int part = 0; part < kLanes; part += kShort) {
    Short sums[4] = {};
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4) {
      for (int i = 0; i < 4; ++i) sums[i] += load<Short>(x + part + (p + i) * kLanes);
    }
    for (; p < pixels; ++p) sums[0] += load<Short>(x + part + p * kLanes);
    store(means + part, ((sums[0] + sums[1]) + (sums[2] + sums[3])) / all<Short>(static_cast<float>(pixels)));
  }
}

void gate(float* y, const float* x, const float* gates, int64_t pixels) {
  for (int part = 0; part < kLanes; part += kShort) {
    const Short factor = load<Short>(gates + part);
    for (int64_t i = part; i < pixels * kLanes; i += kLanes) store(y + i, load<Short>(x + i) * factor);
  }
}

void shift(float* y, const float* x, const float* shifts, int64_t pixels, Activation activation) {
  for (int part = 0; part < kLanes; part += kShort) {
    const Short more = load<Short>(shifts + part);
    for (int64_t i = part; i < pixels * kLanes; i += kLanes) store(y + i, activated(load<Short>(x + i) + more, activation));
  }
}

void weigh(float* y, int64_t height, int64_t width, const float* gates, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < height; ++i) {
    const float* row = gates + i * rows / height * columns * kLanes;
    for (int64_t j = 0; j < width; ++j, y += kLanes) {
      const float* factor = row + j * columns / width * kLanes;
      for (int part = 0; part < kLanes; part += kShort) {
        store(y + part, load<Short>(y + part) * load<Short>(factor + part));
      }
    }
  }
}

void add(float* y, const float* x, const float* other, int64_t pixels, Activation activation) {
  for (int64_t i = 0; i < pixels * kLanes; i += kShort) {
    store(y + i, activated(load<Short>(x + i) + load<Short>(other + i), activation));
  }
}

void pool(float* y, const float* x, int64_t height, int64_t width, int64_t window_height, int64_t window_width) {
  const Short share = all<Short>(1.0f / static_cast<float>(window_height * window_width));
  for (int64_t i = 0; i < height / window_height; ++i) {
    for (int64_t j = 0; j < width / window_width; ++j, y += kLanes) {
      for (int part = 0; part < kLanes; part += kShort) {
        Short sum{};
        for (int64_t k = 0; k < window_height; ++k) {
          const float* from = x + ((i * window_height + k) * width + j * window_width) * kLanes + part;
          for (int64_t l = 0; l < window_width; ++l) sum += load<Short>(from + l * kLanes);
        }
        store(y + part, sum * share);
      }
    }
  }
}

void max_pool(float* y, const float* x, int64_t height, int64_t width, int64_t rows, int64_t columns,
              const Windows& windows) {
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t top = i * windows.stride - windows.pad_height;
    const int64_t first_row = top > 0 ? top : 0, end_row = top + windows.height < height ? top + windows.height : height;
    for (int64_t j = 0; j < columns; ++j, y += kLanes) {
      const int64_t left = j * windows.stride - windows.pad_width;
      const int64_t first = left > 0 ? left : 0, end = left + windows.width < width ? left + windows.width : width;
      for (int part = 0; part < kLanes; part += kShort) {
        Short most = load<Short>(x + (first_row * width + first) * kLanes + part);
        for (int64_t k = first_row; k < end_row; ++k) {
          const float* from = x + k * width * kLanes + part;
          for (int64_t l = first; l < end; ++l) {
            const Short value = load<Short>(from + l * kLanes);
            most = (value > most) | (value != value) ? value : most;  // NaN stays, as above
          }
        }
        store(y + part, most);
      }
    }
  }
}

// Where the centre of a pixel of a larger map lies: between this pixel and the next one, in parts of 2 * factor. The rule is
// that of `Line` (upsample.h), which goes over maps one by one; here their values lie side by side.
struct Place {
  Place(int64_t out, int64_t factor) : parts(2 * factor) {
    const int64_t position = 2 * out + 1 > factor ? 2 * out + 1 - factor : 0;
    whole = position / parts;
    rest = position % parts;
  }
  int64_t next(int64_t size) const { return whole + 1 < size ? whole + 1 : whole; }
  float far() const { return static_cast<float>(rest) / static_cast<float>(parts); }

  int64_t parts, whole, rest;
};

void enlarge(float* y, const float* x, int64_t height, int64_t width, int64_t factor, int64_t columns, int64_t first,
             int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const Place row(i, factor);
    const float* above = x + row.whole * width * kLanes;
    const float* below = x + row.next(height) * width * kLanes;
    const Short low = all<Short>(row.far()), high = all<Short>(1 - row.far());
    float* to = y + i * columns * kLanes;
    for (int64_t j = 0; j < columns; ++j, to += kLanes) {
      const Place column(j, factor);
      const int64_t left = column.whole * kLanes, right = column.next(width) * kLanes;
      const Short far = all<Short>(column.far()), near = all<Short>(1 - column.far());
      for (int part = 0; part < kLanes; part += kShort) {
        const Short upper = near * load<Short>(above + left + part) + far * load<Short>(above + right + part);
        const Short lower = near * load<Short>(below + left + part) + far * load<Short>(below + right + part);
        store(to + part, high * upper + low * lower);
      }
    }
  }
}

}  // namespace

extern const PlanKernels GHOSTNET_PLAN_KERNELS;
const PlanKernels GHOSTNET_PLAN_KERNELS{GHOSTNET_NAME, kVector, kTileVectors * kVector, kTilePixels, convolve, finish, depthwise,
                                        means,         gate,    shift,                  weigh,       add,    pool,   max_pool,
                                        enlarge};

}  // namespace ghostnet
