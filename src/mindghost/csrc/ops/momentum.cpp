#include "momentum.h"

#include <algorithm>

#include "thread_pool.h"

namespace ghostnet {
namespace {

constexpr int64_t kPart = 1 << 14;  // elements that a thread works on at a time

// A part of a tensor.
struct Part {
  int64_t tensor, begin, size;
};

std::vector<Part> parts_of(const std::vector<Weights>& all) {
  std::vector<Part> parts;
  for (size_t i = 0; i < all.size(); ++i) {
    for (int64_t begin = 0; begin < all[i].size; begin += kPart) {
      parts.push_back({static_cast<int64_t>(i), begin, std::min(kPart, all[i].size - begin)});
    }
  }
  return parts;
}

template <typename Task>
void each_part(const std::vector<Part>& parts, const Task& task) {
  parallel(parts.size(), 1, [&](Parts& indices) {
    for (int64_t i; indices.next(&i);) task(i, parts[i]);
  });
}

}  // namespace

double square_sum(const Kernels& kernels, const std::vector<Weights>& all, float factor) {
  const std::vector<Part> parts = parts_of(all);
  std::vector<double> sums(parts.size());
  each_part(parts, [&](int64_t i, const Part& part) {
    sums[i] = kernels.squares(all[part.tensor].gradient + part.begin, part.size, factor);
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

void update(const Kernels& kernels, const std::vector<Weights>& all, MomentumStep step) {
  std::vector<bool> starts;
  for (const Weights& each : all) starts.push_back(each.starts && each.starts[0] != 0);
  each_part(parts_of(all), [&](int64_t, const Part& part) {
    const Weights& each = all[part.tensor];
    MomentumStep own = step;
    own.decay = each.decay;
    own.rate = each.rate;
    if (starts[part.tensor]) {
      own.momentum = 0;
      std::fill_n(each.starts + part.begin, part.size, 0.0f);
    }
    kernels.momentum(each.weight + part.begin, each.moment + part.begin, each.gradient + part.begin, part.size, own);
  });
}

}  // namespace ghostnet
