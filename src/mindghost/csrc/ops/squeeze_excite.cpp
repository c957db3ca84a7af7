#include "squeeze_excite.h"

#include <algorithm>

#include "thread_pool.h"

namespace ghostnet {
void means(const Kernels& kernels, int64_t maps, int64_t size, const float* x, float* means) {
  each_map(maps, size, [=, &kernels](int64_t i) { means[i] = static_cast<float>(kernels.sum(x + i * size, size) / size); });
}

void means_gradient(int64_t maps, int64_t size, const float* d_means, float* d_x) {
  each_map(maps, size, [=](int64_t i) { std::fill_n(d_x + i * size, size, d_means[i] / size); });
}

void gate(const Kernels& kernels, int64_t maps, int64_t size, const float* x, const float* gates, float* y) {
  each_map(maps, size, [=, &kernels](int64_t i) { kernels.scale(y + i * size, x + i * size, size, gates[i]); });
}

void gate_gradient(const Kernels& kernels, int64_t maps, int64_t size, const float* x, const float* gates,
                   const float* d_y, float* d_x, float* d_gates) {
  each_map(maps, size, [=, &kernels](int64_t i) {
    kernels.scale(d_x + i * size, d_y + i * size, size, gates[i]);
    d_gates[i] = static_cast<float>(kernels.product(x + i * size, d_y + i * size, size));
  });
}

}  // namespace ghostnet
