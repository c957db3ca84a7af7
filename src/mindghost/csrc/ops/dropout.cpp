#include "dropout.h"

#include <algorithm>

#include "geometry.h"
#include "thread_pool.h"

namespace ghostnet {

void drop(const Kernels& kernels, int64_t size, uint32_t key, float rate, float keep, const float* x, float* y) {
  constexpr int64_t kPart = 1 << 14;
  parallel(divide_up(size, kPart), 1, [&](Parts& parts) {
    for (int64_t part; parts.next(&part);) {
      const int64_t first = part * kPart;
      kernels.drop(y + first, x + first, std::min(kPart, size - first), static_cast<uint32_t>(first), key, rate, keep);
    }
  });
}

}  // namespace ghostnet
