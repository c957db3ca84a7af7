#include "quantize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "geometry.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

constexpr int64_t kPart = 1 << 14;

// Calls task(part, first element, elements) for all parts of so many elements.
template <typename Task>
void each_part(int64_t size, const Task& task) {
  parallel(divide_up(size, kPart), 1, [&](Parts& parts) {
    for (int64_t part; parts.next(&part);) task(part, part * kPart, std::min(kPart, size - part * kPart));
  });
}

Levels levels_of(Range range, const MapRounding& rounding) {
  const float scale = std::max(range.high - range.low, rounding.tiny) / static_cast<float>(rounding.levels);
  const float zero = std::nearbyint(-range.low / scale);
  return {scale, -zero, static_cast<float>(rounding.levels) - zero};
}

// What one level of a row stands for.
float step_of(const Kernels& kernels, const Rows& rows, int64_t row) {
  float low, high;
  kernels.range(rows.weight + row * rows.size, rows.size, &low, &high);
  return std::max({-low, high, rows.tiny}) / static_cast<float>(rows.levels);
}

}  // namespace

Range averaged(const Kernels& kernels, int64_t size, const float* x, Range before, const MapRounding& rounding) {
  std::vector<Range> found(divide_up(size, kPart));
  each_part(size, [&](int64_t part, int64_t first, int64_t count) {
    kernels.range(x + first, count, &found[part].low, &found[part].high);
  });
  Range now{0, 0};
  for (const Range& each : found) now = {std::min(now.low, each.low), std::max(now.high, each.high)};
  const float kept = before.high > before.low ? rounding.kept : 0.0f;
  return {now.low + (before.low - now.low) * kept, now.high + (before.high - now.high) * kept};
}

void quantize(const Kernels& kernels, int64_t size, const float* x, Range range, const MapRounding& rounding, float* y) {
  const Levels levels = levels_of(range, rounding);
  each_part(size, [&](int64_t, int64_t first, int64_t count) { kernels.quantize(y + first, x + first, count, levels); });
}

void quantize_gradient(const Kernels& kernels, int64_t size, const float* x, const float* d_y, Range range,
                       const MapRounding& rounding, float* d_x) {
  const Levels levels = levels_of(range, rounding);
  each_part(size, [&](int64_t, int64_t first, int64_t count) {
    kernels.quantize_gradient(d_x + first, d_y + first, x + first, count, levels);
  });
}

void quantize_weight(const Kernels& kernels, const Rows& rows, float* y) {
  const float most = static_cast<float>(rows.levels);
  each_map(rows.outputs, rows.size, [=, &kernels](int64_t i) {
    const int64_t first = i * rows.size;
    kernels.quantize(y + first, rows.weight + first, rows.size, {step_of(kernels, rows, i), -most, most});
  });
}

void quantize_bias(const Kernels& kernels, const Rows& rows, const float* bias, Range range, const MapRounding& rounding,
                   float* y) {
  const float scale = levels_of(range, rounding).scale;
  each_map(rows.outputs, rows.size, [=, &kernels](int64_t i) {
    const float step = step_of(kernels, rows, i) * scale;
    y[i] = std::nearbyint(bias[i] / step) * step;
  });
}

}  // namespace ghostnet
