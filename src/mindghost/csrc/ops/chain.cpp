#include "chain.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "blocks.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

// Mean and variance of a channel, map by map.
class Statistics {
 public:
  void add(const Kernels& kernels, const float* map, int64_t size) {
    double sum, squares;
    kernels.moments(map, size, &sum, &squares);
    const double mean = sum / size, count = count_ + size, shift = mean - mean_;
    squares_ += squares + shift * shift * count_ * size / count;
    mean_ += shift * size / count;
    count_ = count;
  }

  // Writes the statistics of channel c, and returns the normalisation that they mean. Like MindSpore, the running
  // variance takes the unbiased one (of a single value: not a number), the normalisation the biased one.
  Affine finish(const Norm& norm, int64_t c) const {
    const double variance = squares_ / count_;
    const float unbiased =
        count_ > 1 ? static_cast<float>(squares_ / (count_ - 1)) : std::numeric_limits<float>::quiet_NaN();
    norm.mean[c] = static_cast<float>(mean_);
    norm.inverse[c] = static_cast<float>(1 / std::sqrt(variance + norm.eps));
    const float keep = 1 - norm.momentum;
    norm.new_mean[c] = norm.running_mean[c] * keep + norm.mean[c] * norm.momentum;
    norm.new_variance[c] = norm.running_variance[c] * keep + unbiased * norm.momentum;
    return {norm.mean[c], norm.inverse[c] * norm.gamma[c], norm.beta[c], norm.relu};
  }

 private:
  double count_ = 0, mean_ = 0, squares_ = 0;
};

Affine affine_of(const Norm& norm, int64_t c) {
  return {norm.mean[c], norm.inverse[c] * norm.gamma[c], norm.beta[c], norm.relu};
}

Affine running_affine(const Norm& norm, int64_t c) {
  const double inverse = 1 / std::sqrt(static_cast<double>(norm.running_variance[c]) + norm.eps);
  return {norm.running_mean[c], static_cast<float>(inverse * norm.gamma[c]), norm.beta[c], norm.relu};
}

// The gradient of a batch norm's input, from the sums over the channel of `count` values; without sums, where the
// statistics do not depend on it.
struct NormGradient {
  float factor = 0, dz_mean = 0, slope = 0;

  NormGradient() = default;

  NormGradient(const Norm& norm, int64_t c) : factor(norm.gamma[c] * norm.inverse[c]) {
    norm.d_beta[c] = norm.d_gamma[c] = 0;
  }

  NormGradient(const Norm& norm, int64_t c, Sums sums, double count) {
    const double inverse = norm.inverse[c];
    norm.d_beta[c] = static_cast<float>(sums.gradient);
    norm.d_gamma[c] = static_cast<float>(sums.product * inverse);
    factor = norm.gamma[c] * norm.inverse[c];
    dz_mean = static_cast<float>(sums.gradient / count);
    slope = static_cast<float>(sums.product * inverse * inverse / count);
  }
};

void operator+=(Sums& sums, Sums more) {
  sums.gradient += more.gradient;
  sums.product += more.product;
}

enum class Pass { kForward, kBackward, kEvaluation };

// A thread's share of a chain: channel after channel, kLanes samples at a time, with memory of its own.
template <int kLanes>
class Worker {
 public:
  Worker(const Kernels& kernels, const Chain& chain, Pass pass)
      : Worker(kernels, chain, pass == Pass::kEvaluation || chain.frozen ? kLanes : chain.batch,
               pass == Pass::kBackward) {}

  void forward(int64_t c) {
    Affine affine1{};
    if (k_.first) {
      Statistics statistics;
      for (int64_t n = 0; n < k_.batch; n += kLanes) statistics.add(kernels_, x(n, c), in_block_);
      affine1 = statistics.finish(k_.norm1, c);
    }
    std::vector<Statistics> statistics(k_.multiplier);
    for (int64_t n = 0; n < k_.batch; n += kLanes) {
      const float* z = write_first(n, c, affine1);
      if (!k_.convolution) continue;
      depthwise_.set_input(z);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        depthwise_.forward(record(n, j), weight(c, j));
        if (k_.second) {
          statistics[j].add(kernels_, record(n, j), out_block_);
        } else {
          copy(n, ghost(c, j), record(n, j));
        }
      }
    }
    for (int64_t j = 0; k_.second && j < k_.multiplier; ++j) {
      const Affine affine2 = statistics[j].finish(k_.norm2, c * k_.multiplier + j);
      if (ghost(c, j) >= k_.out_channels) continue;
      for (int64_t n = 0; n < k_.batch; n += kLanes) write(n, ghost(c, j), record(n, j), affine2);
    }
  }

  // The samples from n on, of one channel of the input.
  void evaluate(int64_t n, int64_t c) {
    const float* z = write_first(n, c, k_.first ? running_affine(k_.norm1, c) : Affine{});
    if (!k_.convolution) return;
    depthwise_.set_input(z);
    for (int64_t j = 0; j < k_.multiplier && ghost(c, j) < k_.out_channels; ++j) {
      depthwise_.forward(record(0, 0), weight(c, j));
      if (k_.second) {
        write(n, ghost(c, j), record(0, 0), running_affine(k_.norm2, c * k_.multiplier + j));
      } else {
        copy(n, ghost(c, j), record(0, 0));
      }
    }
  }

  // The gradient of the input alone.
  void frozen_backward(int64_t c) {
    const Affine affine1 = k_.first ? affine_of(k_.norm1, c) : Affine{};
    const NormGradient gradient1 = k_.first ? NormGradient(k_.norm1, c) : NormGradient{};
    gradients2_.clear();
    for (int64_t j = 0; j < k_.multiplier && k_.second; ++j) gradients2_.emplace_back(k_.norm2, c * k_.multiplier + j);
    if (k_.convolution) {
      const int64_t weights = k_.multiplier * k_.map.kernel_height * k_.map.kernel_width;
      std::fill_n(k_.d_weight + c * weights, weights, 0.0f);
    }
    for (int64_t n = 0; n < k_.batch; n += kLanes) {
      if (!k_.convolution) {
        write_norm_gradient(n, c, d_out(n, c), affine1, gradient1);
        continue;
      }
      const bool again = k_.second && k_.norm2.relu;
      if (again) set_input(n, c, affine1);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        if (again) depthwise_.forward(record(0, j), weight(c, j));
        set_gradient(n, c, j, again ? record(0, j) : nullptr);
        depthwise_.input_gradient(d_input_.get(), weight(c, j), j > 0);
      }
      if (k_.first) {
        kernels_.add(d_input_.get(), d_out(n, c), in_block_);
        write_norm_gradient(n, c, d_input_.get(), affine1, gradient1);
      } else {
        write_d_x(n, c, [&](float* to) { std::memcpy(to, d_input_.get(), in_block_ * sizeof(float)); });
      }
    }
  }

  void backward(int64_t c) {
    if (k_.frozen) {
      frozen_backward(c);
      return;
    }
    if (!k_.convolution) {
      backward_norm(c);
      return;
    }
    if (k_.second) record_outputs(c);
    const Affine affine1 = k_.first ? affine_of(k_.norm1, c) : Affine{};
    const int64_t taps = k_.map.kernel_height * k_.map.kernel_width;
    std::vector<double> d_weight(k_.multiplier * taps, 0.0);
    Sums sums1{0, 0};
    for (int64_t n = 0; n < k_.batch; n += kLanes) {
      const float* from = set_input(n, c, affine1);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        set_gradient(n, c, j, record(n, j));
        depthwise_.weight_gradient(d_weight.data() + j * taps);
        depthwise_.input_gradient(d_input_.get(), weight(c, j), j > 0);
      }
      if (k_.first) {
        kernels_.add(d_input_.get(), d_out(n, c), in_block_);
        sums1 += kernels_.norm_sums(record(n, 0), d_input_.get(), from, in_block_, affine1);
      } else {
        write_d_x(n, c, [&](float* to) { std::memcpy(to, d_input_.get(), in_block_ * sizeof(float)); });
      }
    }
    for (int64_t t = 0; t < k_.multiplier * taps; ++t) {
      k_.d_weight[c * k_.multiplier * taps + t] = static_cast<float>(d_weight[t]);
    }
    if (!k_.first) return;
    const NormGradient gradient1(k_.norm1, c, sums1, values(in_size_));
    Affine no_relu = affine1;
    no_relu.relu = false;  // what was recorded has passed it
    for (int64_t n = 0; n < k_.batch; n += kLanes) write_norm_gradient(n, c, record(n, 0), no_relu, gradient1);
  }

 private:
  // `samples`: of which the convolution's outputs are kept at a time.
  Worker(const Kernels& kernels, const Chain& chain, int64_t samples, bool with_gradient)
      : kernels_(kernels),
        k_(chain),
        in_size_(chain.map.height * chain.map.width),
        out_size_(chain.convolution ? chain.map.out_height() * chain.map.out_width() : in_size_),
        in_block_(in_size_ * kLanes),
        out_block_(out_size_ * kLanes),
        first_out_(chain.first && chain.convolution ? chain.channels : 0),
        record_(std::max(chain.multiplier * out_size_, with_gradient ? in_size_ : 0)),
        depthwise_(kernels, chain.convolution ? chain.map : Geometry{1, 1, 1, 1, 1, 0, 0}),
        records_(chain.convolution ? samples * record_ : 0),
        input_(in_block_),
        d_input_(with_gradient ? in_block_ : 0),
        d_record_(with_gradient ? out_block_ : 0),
        read_x_(kLanes > 1 ? in_block_ : 0),
        read_out_(kLanes > 1 ? out_block_ : 0),
        written_(kLanes > 1 ? std::max(in_block_, out_block_) : 0),
        zeros_(with_gradient ? out_block_ : 0) {}

  // A tensor (N, channels, size). One channel of kLanes samples is a block: element i of sample l stands at
  // i * kLanes + l, which is where a tensor has it if kLanes is 1.
  template <typename Float>
  struct Maps {
    Float* values;
    int64_t channels, size;

    Float* at(int64_t n, int64_t c) const { return values + (n * channels + c) * size; }
    int64_t next() const { return channels * size; }  // sample
  };

  // The block of channel c of samples n..., in `room` if it has to be put together.
  static const float* read(Maps<const float> maps, int64_t n, int64_t c, Scratch& room) {
    const float* from = maps.at(n, c);
    if (kLanes == 1) return from;
    float* to = room.get();
    interleave<kLanes>(to, from, maps.next(), maps.size);
    return to;
  }

  // Has `fill` write the block of channel c of samples n..., and returns that block.
  template <typename Fill>
  const float* write(Maps<float> maps, int64_t n, int64_t c, const Fill& fill) {
    float* to = maps.at(n, c);
    float* block = kLanes == 1 ? to : written_.get();
    fill(block);
    if (kLanes == 1) return block;
    separate<kLanes>(to, block, maps.next(), maps.size);
    return block;
  }

  const float* x(int64_t n, int64_t c) { return read({k_.x, k_.channels, in_size_}, n, c, read_x_); }
  float* record(int64_t n, int64_t j) { return records_.get() + n * record_ + j * out_block_; }
  const float* weight(int64_t c, int64_t j) const {
    return k_.weight + (c * k_.multiplier + j) * k_.map.kernel_height * k_.map.kernel_width;
  }
  // The output channel of a convolution's output.
  int64_t ghost(int64_t c, int64_t j) const { return first_out_ + c * k_.multiplier + j; }

  // Zeros for a channel that is left out.
  const float* d_out(int64_t n, int64_t c) {
    return c < k_.out_channels ? read({k_.d_out, k_.out_channels, out_size_}, n, c, read_out_) : zeros_.get();
  }

  template <typename Fill>
  const float* write_out(int64_t n, int64_t c, const Fill& fill) {
    return write({k_.out, k_.out_channels, out_size_}, n, c, fill);
  }

  template <typename Fill>
  void write_d_x(int64_t n, int64_t c, const Fill& fill) {
    write({k_.d_x, k_.channels, in_size_}, n, c, fill);
  }

  const float* write(int64_t n, int64_t c, const float* from, Affine affine) {
    const float* residual = nullptr;
    if (k_.residual) residual = read({k_.residual, k_.out_channels, out_size_}, n, c, read_out_);
    return write_out(n, c, [&](float* to) { kernels_.affine(to, from, residual, out_block_, affine); });
  }

  void copy(int64_t n, int64_t c, const float* from) {
    write_out(n, c, [&](float* to) { std::memcpy(to, from, out_block_ * sizeof(float)); });
  }

  // Writes the normalised input, where the result holds it. Returns what a convolution reads.
  const float* write_first(int64_t n, int64_t c, Affine affine1) {
    const float* z = x(n, c);
    if (!k_.first) return z;
    const float* normalised = write(n, c, z, affine1);
    if (!k_.residual) return normalised;
    if (k_.convolution) kernels_.affine(input_.get(), z, nullptr, in_block_, affine1);
    return input_.get();
  }

  // Of how many values of a channel the statistics are those of the batch: running ones hardly move with any of them.
  double values(int64_t size) const {
    return k_.running ? std::numeric_limits<double>::infinity() : static_cast<double>(k_.batch) * size;
  }

  // Gives the convolution its input again. Returns the block of x.
  const float* set_input(int64_t n, int64_t c, Affine affine1) {
    const float* from = x(n, c);
    if (k_.first) kernels_.affine(input_.get(), from, nullptr, in_block_, affine1);
    depthwise_.set_input(k_.first ? input_.get() : from);
    return from;
  }

  // Computes the convolution's outputs again, and with them the gradient of the norm that follows.
  void record_outputs(int64_t c) {
    gradients2_.clear();
    std::vector<Sums> sums(k_.multiplier, Sums{0, 0});
    const Affine affine1 = k_.first ? affine_of(k_.norm1, c) : Affine{};
    for (int64_t n = 0; n < k_.batch; n += kLanes) {
      set_input(n, c, affine1);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        depthwise_.forward(record(n, j), weight(c, j));
        sums[j] += kernels_.norm_sums(nullptr, d_out(n, ghost(c, j)), record(n, j), out_block_,
                                      affine_of(k_.norm2, c * k_.multiplier + j));
      }
    }
    for (int64_t j = 0; j < k_.multiplier; ++j) {
      gradients2_.emplace_back(k_.norm2, c * k_.multiplier + j, sums[j], values(out_size_));
    }
  }

  // Gives the convolution the gradient of its output, which is recorded; null: a norm's gradient does not depend on it.
  void set_gradient(int64_t n, int64_t c, int64_t j, const float* outputs) {
    const float* gradient = d_out(n, ghost(c, j));
    if (!k_.second) {
      depthwise_.set_gradient(gradient);
      return;
    }
    norm_gradient(d_record_.get(), gradient, outputs ? outputs : gradient, out_block_,
                  affine_of(k_.norm2, c * k_.multiplier + j), gradients2_[j]);
    depthwise_.set_gradient(d_record_.get());
  }

  void backward_norm(int64_t c) {
    const Affine affine1 = affine_of(k_.norm1, c);
    Sums sums{0, 0};
    for (int64_t n = 0; n < k_.batch; n += kLanes) {
      sums += kernels_.norm_sums(nullptr, d_out(n, c), x(n, c), in_block_, affine1);
    }
    const NormGradient gradient(k_.norm1, c, sums, values(in_size_));
    for (int64_t n = 0; n < k_.batch; n += kLanes) write_norm_gradient(n, c, d_out(n, c), affine1, gradient);
  }

  void norm_gradient(float* dx, const float* dy, const float* from, int64_t size, Affine affine,
                     const NormGradient& gradient) const {
    kernels_.norm_gradient(dx, dy, from, size, affine, gradient.factor, gradient.dz_mean, gradient.slope);
  }

  // The gradient of x from that of its norm's result.
  void write_norm_gradient(int64_t n, int64_t c, const float* dy, Affine affine1, const NormGradient& gradient) {
    const float* from = x(n, c);
    write_d_x(n, c, [&](float* to) { norm_gradient(to, dy, from, in_block_, affine1, gradient); });
  }

  const Kernels& kernels_;
  const Chain& k_;
  const int64_t in_size_, out_size_;    // of a map
  const int64_t in_block_, out_block_;  // of kLanes maps
  const int64_t first_out_;
  const int64_t record_;  // size of what is recorded of a sample: the convolution's outputs, then the input's gradient
  Depthwise<kLanes> depthwise_;
  Scratch records_, input_, d_input_, d_record_, read_x_, read_out_, written_;
  Buffer zeros_;
  std::vector<NormGradient> gradients2_;
};

// Up to these sizes it pays to take kTogether samples: rows of a map fill few vectors, or a map hardly repays the calls.
constexpr int64_t kSmallWidth = 16, kSmallSize = 16;

bool small(const Chain& chain) {
  if (chain.batch % kTogether != 0) return false;
  return chain.convolution ? chain.map.out_width() <= kSmallWidth : chain.map.height * chain.map.width <= kSmallSize;
}

template <int kLanes>
using Lanes = std::integral_constant<int, kLanes>;

// Calls run with the number of samples to take together.
template <typename Run>
void with_lanes(const Chain& chain, const Run& run) {
  if (small(chain)) {
    run(Lanes<kTogether>());
  } else {
    run(Lanes<1>());
  }
}

// Channels that a thread takes at a time: about 64 KB of a sample, so that threads seldom share a cache line.
int64_t part(const Chain& chain) {
  const int64_t size = chain.map.height * chain.map.width;
  return std::max<int64_t>(1, std::min<int64_t>(chain.channels / 16, (1 << 14) / size));
}

}  // namespace

void forward(const Kernels& kernels, const Chain& chain) {
  with_lanes(chain, [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    parallel(chain.channels, part(chain), [&](Parts& parts) {
      Worker<kLanes> worker(kernels, chain, Pass::kForward);
      for (int64_t c; parts.next(&c);) worker.forward(c);
    });
  });
}

void backward(const Kernels& kernels, const Chain& chain) {
  with_lanes(chain, [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    parallel(chain.channels, part(chain), [&](Parts& parts) {
      Worker<kLanes> worker(kernels, chain, Pass::kBackward);
      for (int64_t c; parts.next(&c);) worker.backward(c);
    });
  });
}

void evaluate(const Kernels& kernels, const Chain& chain) {
  with_lanes(chain, [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    parallel(chain.batch / kLanes * chain.channels, part(chain), [&](Parts& parts) {
      Worker<kLanes> worker(kernels, chain, Pass::kEvaluation);
      for (int64_t block; parts.next(&block);) {
        worker.evaluate(block / chain.channels * kLanes, block % chain.channels);
      }
    });
  });
}

}  // namespace ghostnet
