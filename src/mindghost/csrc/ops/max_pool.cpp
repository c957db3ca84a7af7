#include "max_pool.h"

#include <algorithm>

#include "thread_pool.h"

namespace ghostnet {
namespace {

// What is not a number stays visible: a run that diverges has to be seen.
float larger(float a, float b) { return a > b || a != a ? a : b; }

}  // namespace

void max_pool(int64_t maps, int64_t height, int64_t width, const float* x, float* out) {
  const int64_t rows = height / 2, columns = width / 2;
  each_map(maps, height * width, [=](int64_t map) {
    for (int64_t row = 0; row < rows; ++row) {
      const float* above = x + (map * height + 2 * row) * width;
      const float* below = above + width;
      float* to = out + (map * rows + row) * columns;
      for (int64_t i = 0; i < columns; ++i) {
        to[i] = larger(larger(above[2 * i], above[2 * i + 1]), larger(below[2 * i], below[2 * i + 1]));
      }
    }
  });
}

void max_pool_gradient(int64_t maps, int64_t height, int64_t width, const float* x, const float* d_out, float* d_x) {
  const int64_t rows = height / 2, columns = width / 2;
  each_map(maps, height * width, [=](int64_t map) {
    if (height % 2 || width % 2) std::fill_n(d_x + map * height * width, height * width, 0.0f);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t start = (map * height + 2 * row) * width;
      const float *above = x + start, *below = above + width;
      const float* from = d_out + (map * rows + row) * columns;
      float *to_above = d_x + start, *to_below = to_above + width;
      for (int64_t i = 0; i < columns; ++i) {
        const float a = above[2 * i], b = above[2 * i + 1], c = below[2 * i], d = below[2 * i + 1];
        // Selections only, so that the compiler makes vectors of it.
        const float first = b > a ? b : a, second = d > c ? d : c;
        const float upper = second > first ? 0 : from[i], lower = second > first ? from[i] : 0;
        to_above[2 * i] = b > a ? 0 : upper;
        to_above[2 * i + 1] = b > a ? upper : 0;
        to_below[2 * i] = d > c ? 0 : lower;
        to_below[2 * i + 1] = d > c ? lower : 0;
      }
    }
  });
}

}  // namespace ghostnet
