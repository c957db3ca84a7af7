#include "channels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "pool.h"

namespace ghostnet {
namespace {

int64_t up_to(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Zeros, with room for whole vectors after the end.
class Buffer {
 public:
  explicit Buffer(int64_t size) : values_(size > 0 ? size + kSlack : 0, 0.0f) {}
  float* get() { return values_.data(); }

 private:
  std::vector<float> values_;
};

// Memory that is written before it is read: nothing is spent on filling it.
class Scratch {
 public:
  explicit Scratch(int64_t size) : values_(size > 0 ? new float[size + kSlack] : nullptr) {}
  float* get() { return values_.get(); }

 private:
  std::unique_ptr<float[]> values_;
};

// A depthwise convolution of single maps, as sums of shifted maps.
//
// The padded input is split into stride x stride phases (rows and columns that are equal modulo the stride), so that
// every tap of the kernel reads elements that lie side by side, whatever the stride.
class Depthwise {
 public:
  Depthwise(const Kernels& kernels, const Geometry& map)
      : kernels_(kernels),
        map_(map),
        rows_(divide_up(map.height + 2 * map.pad_height, map.stride)),
        columns_(up_to(divide_up(map.width + 2 * map.pad_width, map.stride), 8)),
        top_((map.kernel_height - 1) / map.stride),
        left_((map.kernel_width - 1) / map.stride),
        gradient_rows_(rows_ + top_),
        gradient_columns_(up_to(left_ + columns_, 8)),
        padded_(map.stride * map.stride * rows_ * columns_),
        gradient_(gradient_rows_ * gradient_columns_),
        phase_(rows_ * columns_) {
    for (int64_t y = 0; y < map.kernel_height; ++y) {
      for (int64_t x = 0; x < map.kernel_width; ++x) {
        const int64_t phase = y % map.stride * map.stride + x % map.stride;
        offsets_.push_back(phase * rows_ * columns_ + y / map.stride * columns_ + x / map.stride);
      }
    }
  }

  // Takes the map that `forward` and `weight_gradient` read.
  void set_input(const float* map) {
    const int64_t stride = map_.stride;
    for (int64_t y = 0; y < map_.height; ++y, map += map_.width) {
      const int64_t row = y + map_.pad_height;
      float* to = padded_.get() + (row % stride * stride * rows_ + row / stride) * columns_;
      if (stride == 1) {
        std::memcpy(to + map_.pad_width, map, map_.width * sizeof(float));
        continue;
      }
      for (int64_t x = 0; x < stride && x < map_.width; ++x) {
        const int64_t column = x + map_.pad_width;
        float* phase = to + column % stride * rows_ * columns_ + column / stride;
        for (int64_t i = 0; i * stride + x < map_.width; ++i) phase[i] = map[i * stride + x];
      }
    }
  }

  // out: out_height x out_width, and kSlack elements after them.
  void forward(float* out, const float* weight) {
    const Taps taps{static_cast<int>(offsets_.size()), offsets_.data(), weight};
    kernels_.correlate(out, map_.out_height(), map_.out_width(), padded_.get(), columns_, taps);
  }

  // The map for `set_gradient` to read is written here: rows of out_width, gradient_stride() apart.
  float* gradient() { return gradient_.get() + top_ * gradient_columns_ + left_; }

  void set_gradient(const float* d_out) {
    const int64_t width = map_.out_width();
    for (int64_t y = 0; y < map_.out_height(); ++y) {
      std::memcpy(gradient() + y * gradient_columns_, d_out + y * width, width * sizeof(float));
    }
  }

  // Adds this map's part to the gradient of each weight.
  void weight_gradient(double* sums) {
    const Taps taps{static_cast<int>(offsets_.size()), offsets_.data(), nullptr};
    kernels_.correlate_gradient(sums, gradient(), gradient_columns_, map_.out_height(), map_.out_width(),
                                padded_.get(), columns_, taps);
  }

  // d_x: height x width, and kSlack elements after them; added to what is there if `add`.
  void input_gradient(float* d_x, const float* weight, bool add) {
    for (int64_t y = 0; y < map_.stride; ++y) {
      for (int64_t x = 0; x < map_.stride; ++x) phase_gradient(d_x, weight, y, x, add);
    }
  }

 private:
  // The part of the input's gradient that lies in one phase of the padded input.
  void phase_gradient(float* d_x, const float* weight, int64_t phase_y, int64_t phase_x, bool add) {
    const int64_t stride = map_.stride;
    // Rows and columns of the phase, of those that are not padding.
    const int64_t first_row = first(map_.pad_height, phase_y), first_column = first(map_.pad_width, phase_x);
    const int64_t rows = first(map_.pad_height + map_.height, phase_y) - first_row;
    const int64_t columns = first(map_.pad_width + map_.width, phase_x) - first_column;
    if (rows <= 0 || columns <= 0) return;
    std::vector<int64_t> offsets;
    std::vector<float> weights;
    for (int64_t y = phase_y; y < map_.kernel_height; y += stride) {
      for (int64_t x = phase_x; x < map_.kernel_width; x += stride) {
        offsets.push_back(-(y / stride) * gradient_columns_ - x / stride);
        weights.push_back(weight[y * map_.kernel_width + x]);
      }
    }
    const Taps taps{static_cast<int>(offsets.size()), offsets.data(), weights.data()};
    const float* from = gradient() + first_row * gradient_columns_ + first_column;
    if (stride == 1 && !add) {
      kernels_.correlate(d_x, rows, columns, from, gradient_columns_, taps);
      return;
    }
    kernels_.correlate(phase_.get(), rows, columns, from, gradient_columns_, taps);
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = phase_.get() + row * columns;
      const int64_t y = (first_row + row) * stride + phase_y - map_.pad_height;
      float* to = d_x + y * map_.width + first_column * stride + phase_x - map_.pad_width;
      if (add) {
        for (int64_t i = 0; i < columns; ++i) to[i * stride] += values[i];
      } else {
        for (int64_t i = 0; i < columns; ++i) to[i * stride] = values[i];
      }
    }
  }

  // The smallest index in a phase whose position is not before `position`.
  int64_t first(int64_t position, int64_t phase) const {
    return position > phase ? divide_up(position - phase, map_.stride) : 0;
  }

  const Kernels& kernels_;
  const Geometry map_;
  const int64_t rows_, columns_;  // of a phase
  const int64_t top_, left_;      // zeros around the gradient
  const int64_t gradient_rows_, gradient_columns_;
  std::vector<int64_t> offsets_;
  Buffer padded_, gradient_;
  Scratch phase_;
};

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

// The gradient of a batch norm's input, from the sums over the channel.
struct NormGradient {
  float factor, dz_mean, slope;

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

// A thread's share of a chain: channel after channel, with memory of its own.
class Worker {
 public:
  Worker(const Kernels& kernels, const Chain& chain, Pass pass)
      : Worker(kernels, chain, pass == Pass::kEvaluation ? 1 : chain.batch, pass == Pass::kBackward) {}

  void forward(int64_t c) {
    Affine affine1{};
    if (k_.first) {
      Statistics statistics;
      for (int64_t n = 0; n < k_.batch; ++n) statistics.add(kernels_, x(n, c), in_size_);
      affine1 = statistics.finish(k_.norm1, c);
    }
    std::vector<Statistics> statistics(k_.multiplier);
    for (int64_t n = 0; n < k_.batch; ++n) {
      const float* z = write_first(n, c, affine1);
      if (!k_.convolution) continue;
      depthwise_.set_input(z);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        depthwise_.forward(record(n, j), weight(c, j));
        if (k_.second) {
          statistics[j].add(kernels_, record(n, j), out_size_);
        } else {
          copy(n, ghost(c, j), record(n, j));
        }
      }
    }
    for (int64_t j = 0; k_.second && j < k_.multiplier; ++j) {
      const Affine affine2 = statistics[j].finish(k_.norm2, c * k_.multiplier + j);
      if (ghost(c, j) >= k_.out_channels) continue;
      for (int64_t n = 0; n < k_.batch; ++n) write(n, ghost(c, j), record(n, j), affine2);
    }
  }

  // One map of the input.
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

  void backward(int64_t c) {
    if (!k_.convolution) {
      backward_norm(c);
      return;
    }
    if (k_.second) record_outputs(c);
    const Affine affine1 = k_.first ? affine_of(k_.norm1, c) : Affine{};
    const int64_t taps = k_.map.kernel_height * k_.map.kernel_width;
    std::vector<double> d_weight(k_.multiplier * taps, 0.0);
    Sums sums1{0, 0};
    for (int64_t n = 0; n < k_.batch; ++n) {
      set_input(n, c, affine1);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        set_gradient(n, c, j);
        depthwise_.weight_gradient(d_weight.data() + j * taps);
        depthwise_.input_gradient(d_input_.get(), weight(c, j), j > 0);
      }
      if (k_.first) {
        kernels_.add(d_input_.get(), d_out(n, c), in_size_);
        sums1 += kernels_.norm_sums(record(n, 0), d_input_.get(), x(n, c), in_size_, affine1);
      } else {
        std::memcpy(d_x(n, c), d_input_.get(), in_size_ * sizeof(float));
      }
    }
    for (int64_t t = 0; t < k_.multiplier * taps; ++t) {
      k_.d_weight[c * k_.multiplier * taps + t] = static_cast<float>(d_weight[t]);
    }
    if (!k_.first) return;
    const NormGradient gradient1(k_.norm1, c, sums1, static_cast<double>(k_.batch) * in_size_);
    Affine no_relu = affine1;
    no_relu.relu = false;  // what was recorded has passed it
    for (int64_t n = 0; n < k_.batch; ++n) {
      kernels_.norm_gradient(d_x(n, c), record(n, 0), x(n, c), in_size_, no_relu, gradient1.factor,
                             gradient1.dz_mean, gradient1.slope);
    }
  }

 private:
  // `samples`: of which the convolution's outputs are kept at a time.
  Worker(const Kernels& kernels, const Chain& chain, int64_t samples, bool with_gradient)
      : kernels_(kernels),
        k_(chain),
        in_size_(chain.map.height * chain.map.width),
        out_size_(chain.convolution ? chain.map.out_height() * chain.map.out_width() : in_size_),
        first_out_(chain.first && chain.convolution ? chain.channels : 0),
        record_(std::max(chain.multiplier * out_size_, with_gradient ? in_size_ : 0)),
        depthwise_(kernels, chain.convolution ? chain.map : Geometry{1, 1, 1, 1, 1, 0, 0}),
        records_(chain.convolution ? samples * record_ : 0),
        input_(in_size_),
        d_input_(with_gradient ? in_size_ : 0),
        d_record_(with_gradient ? out_size_ : 0),
        zeros_(with_gradient ? out_size_ : 0) {}

  const float* x(int64_t n, int64_t c) const { return k_.x + (n * k_.channels + c) * in_size_; }
  float* d_x(int64_t n, int64_t c) const { return k_.d_x + (n * k_.channels + c) * in_size_; }
  float* out(int64_t n, int64_t c) const { return k_.out + (n * k_.out_channels + c) * out_size_; }
  float* record(int64_t n, int64_t j) { return records_.get() + n * record_ + j * out_size_; }
  const float* weight(int64_t c, int64_t j) const {
    return k_.weight + (c * k_.multiplier + j) * k_.map.kernel_height * k_.map.kernel_width;
  }
  // The output channel of a convolution's output.
  int64_t ghost(int64_t c, int64_t j) const { return first_out_ + c * k_.multiplier + j; }

  // Zeros for a channel that is left out.
  const float* d_out(int64_t n, int64_t c) {
    return c < k_.out_channels ? k_.d_out + (n * k_.out_channels + c) * out_size_ : zeros_.get();
  }
  void write(int64_t n, int64_t c, const float* from, Affine affine) {
    const int64_t at = n * k_.out_channels + c;
    const float* residual = k_.residual ? k_.residual + at * out_size_ : nullptr;
    kernels_.affine(k_.out + at * out_size_, from, residual, out_size_, affine);
  }

  void copy(int64_t n, int64_t c, const float* from) { std::memcpy(out(n, c), from, out_size_ * sizeof(float)); }

  // Writes the normalised input, where the result holds it. Returns what a convolution reads.
  const float* write_first(int64_t n, int64_t c, Affine affine1) {
    const float* z = x(n, c);
    if (!k_.first) return z;
    write(n, c, z, affine1);
    if (!k_.residual) return out(n, c);
    if (k_.convolution) kernels_.affine(input_.get(), z, nullptr, in_size_, affine1);
    return input_.get();
  }

  // Gives the convolution its input again.
  void set_input(int64_t n, int64_t c, Affine affine1) {
    const float* z = x(n, c);
    if (k_.first) {
      kernels_.affine(input_.get(), z, nullptr, in_size_, affine1);
      z = input_.get();
    }
    depthwise_.set_input(z);
  }

  // Computes the convolution's outputs again, and with them the gradient of the norm that follows.
  void record_outputs(int64_t c) {
    gradients2_.clear();
    std::vector<Sums> sums(k_.multiplier, Sums{0, 0});
    const Affine affine1 = k_.first ? affine_of(k_.norm1, c) : Affine{};
    for (int64_t n = 0; n < k_.batch; ++n) {
      set_input(n, c, affine1);
      for (int64_t j = 0; j < k_.multiplier; ++j) {
        const int64_t o = ghost(c, j);
        depthwise_.forward(record(n, j), weight(c, j));
        sums[j] += kernels_.norm_sums(nullptr, d_out(n, o), record(n, j), out_size_,
                                      affine_of(k_.norm2, c * k_.multiplier + j));
      }
    }
    for (int64_t j = 0; j < k_.multiplier; ++j) {
      gradients2_.emplace_back(k_.norm2, c * k_.multiplier + j, sums[j], static_cast<double>(k_.batch) * out_size_);
    }
  }

  // Gives the convolution the gradient of its output.
  void set_gradient(int64_t n, int64_t c, int64_t j) {
    const int64_t o = ghost(c, j);
    if (!k_.second) {
      depthwise_.set_gradient(d_out(n, o));
      return;
    }
    const NormGradient& gradient = gradients2_[j];
    kernels_.norm_gradient(d_record_.get(), d_out(n, o), record(n, j), out_size_,
                           affine_of(k_.norm2, c * k_.multiplier + j), gradient.factor, gradient.dz_mean,
                           gradient.slope);
    depthwise_.set_gradient(d_record_.get());
  }

  void backward_norm(int64_t c) {
    const Affine affine1 = affine_of(k_.norm1, c);
    Sums sums{0, 0};
    for (int64_t n = 0; n < k_.batch; ++n) {
      sums += kernels_.norm_sums(nullptr, d_out(n, c), x(n, c), in_size_, affine1);
    }
    const NormGradient gradient(k_.norm1, c, sums, static_cast<double>(k_.batch) * in_size_);
    for (int64_t n = 0; n < k_.batch; ++n) {
      kernels_.norm_gradient(d_x(n, c), d_out(n, c), x(n, c), in_size_, affine1, gradient.factor,
                             gradient.dz_mean, gradient.slope);
    }
  }

  const Kernels& kernels_;
  const Chain& k_;
  const int64_t in_size_, out_size_, first_out_;
  const int64_t record_;  // size of what is recorded of a sample: the convolution's outputs, then the input's gradient
  Depthwise depthwise_;
  Scratch records_, input_, d_input_, d_record_;
  Buffer zeros_;
  std::vector<NormGradient> gradients2_;
};

// Channels that a thread takes at a time: about 64 KB of a sample, so that threads seldom share a cache line.
int64_t part(const Chain& chain) {
  const int64_t size = chain.map.height * chain.map.width;
  return std::max<int64_t>(1, std::min<int64_t>(chain.channels / 16, (1 << 14) / size));
}

}  // namespace

void forward(const Kernels& kernels, const Chain& chain) {
  parallel(chain.channels, part(chain), [&](Parts& parts) {
    Worker worker(kernels, chain, Pass::kForward);
    for (int64_t c; parts.next(&c);) worker.forward(c);
  });
}

void backward(const Kernels& kernels, const Chain& chain) {
  parallel(chain.channels, part(chain), [&](Parts& parts) {
    Worker worker(kernels, chain, Pass::kBackward);
    for (int64_t c; parts.next(&c);) worker.backward(c);
  });
}

void evaluate(const Kernels& kernels, const Chain& chain) {
  parallel(chain.batch * chain.channels, part(chain), [&](Parts& parts) {
    Worker worker(kernels, chain, Pass::kEvaluation);
    for (int64_t map; parts.next(&map);) worker.evaluate(map / chain.channels, map % chain.channels);
  });
}

}  // namespace ghostnet
