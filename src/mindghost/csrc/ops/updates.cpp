#include "updates.h"

#include <algorithm>
#include <cmath>

#include "buffers.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

constexpr int64_t kPart = 1 << 14;  // elements that a thread works on at a time

// A part of a tensor.
struct Part {
  int64_t tensor, begin, size;
};

template <typename Tensor>
std::vector<Part> parts_of(const std::vector<Tensor>& all) {
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

// What `task` does with the number of a tensor, each part of it, and the step with the tensor's own decay and rate.
template <typename Step, typename Task>
void each_piece(const std::vector<Weights>& all, const Step& step, const Task& task) {
  each_part(parts_of(all), [&](int64_t, const Part& part) {
    Weights piece = all[part.tensor];
    piece.size = part.size;
    piece.gradient += part.begin;
    piece.weight += part.begin;
    piece.first += part.begin;
    if (piece.second) piece.second += part.begin;
    Step own = step;
    own.decay = piece.decay;
    own.rate = piece.rate;
    task(part.tensor, piece, own);
  });
}

}  // namespace

void update_averages(const Kernels& kernels, const std::vector<Average>& all, float share) {
  each_part(parts_of(all), [&](int64_t, const Part& part) {
    const Average& each = all[part.tensor];
    kernels.approach(each.average + part.begin, each.value + part.begin, part.size, share);
  });
}

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

void update_momentum(const Kernels& kernels, const std::vector<Weights>& all, MomentumStep step) {
  std::vector<bool> starts;
  for (const Weights& each : all) starts.push_back(each.second && each.second[0] != 0);
  each_piece(all, step, [&](int64_t tensor, const Weights& piece, MomentumStep own) {
    if (starts[tensor]) {
      own.momentum = 0;
      std::fill_n(piece.second, piece.size, 0.0f);
    }
    kernels.momentum(piece.weight, piece.first, piece.gradient, piece.size, own);
  });
}

void update_rmsprop(const Kernels& kernels, const std::vector<Weights>& all, RmspropStep step) {
  each_piece(all, step, [&](int64_t, const Weights& piece, const RmspropStep& own) {
    kernels.rmsprop(piece.weight, piece.first, piece.second, piece.gradient, piece.size, own);
  });
}

void update_adam(const Kernels& kernels, const std::vector<Weights>& all, AdamStep step) {
  each_piece(all, step, [&](int64_t, const Weights& piece, const AdamStep& own) {
    kernels.adam(piece.weight, piece.first, piece.second, piece.gradient, piece.size, own);
  });
}

void update_lamb(const Kernels& kernels, const std::vector<Weights>& all, AdamStep step, float most) {
  const std::vector<Part> parts = parts_of(all);
  std::vector<Scratch> directions;
  for (const Weights& each : all) directions.emplace_back(each.size);
  std::vector<double> lengths(parts.size()), weights(parts.size());
  each_part(parts, [&](int64_t i, const Part& part) {
    const Weights& each = all[part.tensor];
    AdamStep own = step;
    own.decay = each.decay;
    float *direction = directions[part.tensor].get() + part.begin, *weight = each.weight + part.begin;
    kernels.adam_direction(direction, weight, each.first + part.begin, each.second + part.begin,
                           each.gradient + part.begin, part.size, own);
    lengths[i] = kernels.squares(direction, part.size, 1);
    weights[i] = kernels.squares(weight, part.size, 1);
  });
  // In their order, for the same bits with any number of threads.
  std::vector<double> length(all.size()), weight(all.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    length[parts[i].tensor] += lengths[i];
    weight[parts[i].tensor] += weights[i];
  }
  each_part(parts, [&](int64_t, const Part& part) {
    const Weights& each = all[part.tensor];
    const double ratio = std::sqrt(weight[part.tensor] / length[part.tensor]);
    const bool known = weight[part.tensor] > 0 && length[part.tensor] > 0;
    const float trust = known ? std::min(static_cast<float>(ratio), most) : 1;
    kernels.descend(each.weight + part.begin, directions[part.tensor].get() + part.begin, part.size, each.rate * trust);
  });
}

}  // namespace ghostnet
