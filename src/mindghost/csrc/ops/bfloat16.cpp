#include "bfloat16.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

// Rows and columns of sums that are made at once: two tiles each.
constexpr int64_t kBlock = 2 * kTileSide;
constexpr int64_t kTile = kTileSide * kDepth;  // elements
// Bytes of the samples that are worked on together: they stay in the second-level cache.
constexpr int64_t kBytes = 3 << 18;
// Pieces of work, and groups that the gradient of the weights is summed up in, where there are as many samples: their
// number depends on the sizes alone, not on that of the threads.
constexpr int64_t kPieces = 8, kGroups = 4;
// Steps of the weights' gradient whose values stay in the first-level cache while all taps take them.
constexpr int64_t kSteps = 8;

// Samples with their padding, one after the other, as one row of places: result q is made of the places from q on, at
// offset(tap). Results of places that are no pixels are not used. Where a map keeps its size, neighbouring rows and samples
// share the zeros between them.
class Places {
 public:
  explicit Places(const Geometry& map)
      : map_(map),
        row_(with_padding(map.width, map.out_width(), map.kernel_width, map.pad_width)),
        plane_(with_padding(map.height, map.out_height(), map.kernel_height, map.pad_height) * row_) {}

  int64_t plane() const { return plane_; }  // places of a sample
  int64_t taps() const { return map_.kernel_height * map_.kernel_width; }
  int64_t offset(int64_t tap) const { return tap / map_.kernel_width * row_ + tap % map_.kernel_width; }
  // Results of some samples, in whole blocks; and the places that these are made of.
  int64_t results(int64_t samples) const { return up_to(samples * plane_, kBlock); }
  int64_t inputs(int64_t samples) const { return up_to(results(samples) + offset(taps() - 1) + 1, kDepth); }

  // Calls visit(place, pixel, count) for all pixels of the n-th sample, those that follow each other at once.
  template <typename Visit>
  void each_input(int64_t n, const Visit& visit) const {
    const int64_t first = n * plane_ + map_.pad_height * row_ + map_.pad_width;
    each_run(first, map_.height, map_.width, visit);
  }
  // The same for the pixels of the result.
  template <typename Visit>
  void each_result(int64_t n, const Visit& visit) const {
    each_run(n * plane_, map_.out_height(), map_.out_width(), visit);
  }

 private:
  static int64_t with_padding(int64_t size, int64_t out_size, int64_t kernel, int64_t padding) {
    return size == out_size ? size + padding : std::max(size + padding, out_size + kernel - 1);
  }

  template <typename Visit>
  void each_run(int64_t first, int64_t height, int64_t width, const Visit& visit) const {
    if (width == row_) return visit(first, 0, height * width);
    for (int64_t y = 0; y < height; ++y) visit(first + y * row_, y * width, width);
  }

  const Geometry map_;
  const int64_t row_, plane_;
};

// Samples that are worked on together, of so many bytes each, so that there are as many pieces of work.
int64_t together(int64_t batch, int64_t bytes, int64_t pieces) {
  return std::clamp<int64_t>(kBytes / bytes, 1, divide_up(batch, std::min(batch, pieces)));
}

// A convolution: products of the weights, as the left matrix, and the samples, as the right one. Depths of the sum are
// kDepth channels, its steps the taps of each of them.
class Product {
 public:
  template <typename Weight>
  Product(const Tiles& tiles, const Convolution& k, const Weight& weight)
      : tiles_(tiles),
        k_(k),
        places_(k.map),
        depths_(divide_up(k.in_channels, kDepth)),
        steps_(depths_ * places_.taps()),
        samples_(together(k.batch, depths_ * kDepth * places_.plane() * 2, kPieces)),
        row_(places_.inputs(samples_)),
        results_(places_.results(samples_)),
        weights_(up_to(k.out_channels, kBlock) * steps_ * kDepth) {
    for (int64_t step = 0; step < steps_; ++step) {
      left_.push_back(step * kTile * 2);
      right_.push_back((step / places_.taps() * kTileSide * row_ + places_.offset(step % places_.taps())) * 4);
    }
    parallel(k.out_channels, kTileSide, [&](Parts& parts) {
      for (int64_t o; parts.next(&o);) round_weights(o, weight);
    });
  }

  void run(const float* x, float* out) {
    parallel(divide_up(k_.batch, samples_), 1, [&](Parts& parts) {
      Zeros<uint32_t> inputs(depths_ * kTileSide * row_);
      Scratch sums(kBlock * results_);
      for (int64_t part; parts.next(&part);) {
        const int64_t first = part * samples_, count = std::min(samples_, k_.batch - first);
        for (int64_t n = 0; n < count; ++n) read(inputs.get(), n, x + (first + n) * in_sample());
        tiles_.begin();
        for (int64_t o = 0; o < k_.out_channels; o += kBlock) {
          multiply(sums.get(), o, inputs.get(), count);
          for (int64_t n = 0; n < count; ++n) write(sums.get(), o, n, out + (first + n) * out_sample());
        }
        tiles_.end();
      }
    });
  }

 private:
  int64_t in_size() const { return k_.map.height * k_.map.width; }
  int64_t out_size() const { return k_.map.out_height() * k_.map.out_width(); }
  int64_t in_sample() const { return k_.in_channels * in_size(); }
  int64_t out_sample() const { return k_.out_channels * out_size(); }

  template <typename Weight>
  void round_weights(int64_t o, const Weight& weight) {
    for (int64_t step = 0; step < steps_; ++step) {
      const int64_t first = step / places_.taps() * kDepth, count = std::min(kDepth, k_.in_channels - first);
      float values[kDepth];
      for (int64_t i = 0; i < count; ++i) values[i] = weight(o, first + i, step % places_.taps());
      const int64_t tile = o / kTileSide * steps_ + step;
      tiles_.round(weights_.get() + tile * kTile + o % kTileSide * kDepth, values, count);
    }
  }

  // Each two channels side by side: what a row of a tile is made of.
  void read(uint32_t* to, int64_t n, const float* x) const {
    places_.each_input(n, [&](int64_t place, int64_t pixel, int64_t count) {
      for (int64_t i = 0; i < k_.in_channels; i += 2) {
        const float* first = x + i * in_size() + pixel;
        const float* second = i + 1 < k_.in_channels ? first + in_size() : nullptr;
        tiles_.round_pairs(to + i / 2 * row_ + place, first, second, count);
      }
    });
  }

  void multiply(float* sums, int64_t o, const uint32_t* inputs, int64_t count) {
    const TileMatrix weights{weights_.get() + o * steps_ * kDepth, kDepth * 2, steps_ * kTile * 2, left_.data()};
    for (int64_t q = 0; q < places_.results(count); q += kBlock) {
      const TileMatrix of_inputs{inputs + q, row_ * 4, kTileSide * 4, right_.data()};
      tiles_.multiply(sums + q, results_, false, weights, of_inputs, steps_);
    }
  }

  void write(const float* sums, int64_t o, int64_t n, float* out) const {
    const int64_t outs = std::min(kBlock, k_.out_channels - o);
    places_.each_result(n, [&](int64_t place, int64_t pixel, int64_t count) {
      for (int64_t i = 0; i < outs; ++i) {
        std::memcpy(out + (o + i) * out_size() + pixel, sums + i * results_ + place, count * sizeof(float));
      }
    });
  }

  const Tiles& tiles_;
  const Convolution& k_;
  const Places places_;
  const int64_t depths_, steps_;
  const int64_t samples_;        // together
  const int64_t row_, results_;  // places of a channel, results of an output
  std::vector<int64_t> left_, right_;
  Zeros<uint16_t> weights_;
};

// The gradient of the weights: products of the samples, as the left matrix, and the gradients of the results, as the right
// one. The sum goes over places; those that are no pixels have gradients of 0.
class Gradient {
 public:
  Gradient(const Tiles& tiles, const Convolution& k)
      : tiles_(tiles),
        k_(k),
        places_(k.map),
        ins_(up_to(k.in_channels, kBlock)),
        outs_(up_to(k.out_channels, kBlock)),
        samples_(together(k.batch, (ins_ + outs_) * places_.plane() * 2, kGroups)),
        row_(places_.inputs(samples_)),
        results_(places_.results(samples_)),
        steps_(results_ / kDepth) {
    for (int64_t step = 0; step < steps_; ++step) {
      left_.push_back(step * kDepth * 2);
      right_.push_back(step * kTile * 2);
    }
  }

  void run(const Kernels& kernels, const float* x, const float* d_out, float* d_weight) const {
    const int64_t parts = divide_up(k_.batch, samples_), each = divide_up(parts, std::min(parts, kGroups));
    const int64_t groups = divide_up(parts, each), size = places_.taps() * ins_ * outs_;
    Scratch sums(groups * size);
    parallel(groups, 1, [&](Parts& taken) {
      Zeros<uint16_t> inputs(ins_ * row_), rows(kTileSide * results_), gradients(outs_ * results_);
      for (int64_t group; taken.next(&group);) {
        for (int64_t part = group * each; part < std::min((group + 1) * each, parts); ++part) {
          const int64_t first = part * samples_, count = std::min(samples_, k_.batch - first);
          read_inputs(inputs.get(), x, first, count);
          read_gradients(gradients.get(), rows.get(), d_out, first, count);
          multiply(sums.get() + group * size, part > group * each, inputs.get(), gradients.get());
        }
      }
    });
    for (int64_t group = 1; group < groups; ++group) kernels.add(sums.get(), sums.get() + group * size, size);
    parallel(k_.out_channels, 1, [&](Parts& taken) {
      for (int64_t o; taken.next(&o);) finish(sums.get(), o, d_weight + o * k_.in_channels * places_.taps());
    });
  }

 private:
  void read_inputs(uint16_t* to, const float* x, int64_t first, int64_t count) const {
    const int64_t size = k_.map.height * k_.map.width;
    for (int64_t n = 0; n < count; ++n) {
      places_.each_input(n, [&](int64_t place, int64_t pixel, int64_t pixels) {
        for (int64_t i = 0; i < k_.in_channels; ++i) {
          tiles_.round(to + i * row_ + place, x + ((first + n) * k_.in_channels + i) * size + pixel, pixels);
        }
      });
    }
  }

  // Each two places side by side, for kTileSide outputs at a time; `rows` is room for these.
  void read_gradients(uint16_t* to, uint16_t* rows, const float* d_out, int64_t first, int64_t count) const {
    const int64_t size = k_.map.out_height() * k_.map.out_width();
    for (int64_t o = 0; o < outs_; o += kTileSide) {
      if (count < samples_ || o + kTileSide > k_.out_channels) std::memset(rows, 0, kTileSide * results_ * 2);
      for (int64_t i = 0; i < std::min(kTileSide, k_.out_channels - o); ++i) {
        for (int64_t n = 0; n < count; ++n) {
          places_.each_result(n, [&](int64_t place, int64_t pixel, int64_t pixels) {
            const float* from = d_out + ((first + n) * k_.out_channels + o + i) * size + pixel;
            tiles_.round(rows + i * results_ + place, from, pixels);
          });
        }
      }
      for (int64_t step = 0; step < steps_; ++step) {
        tiles_.transpose(reinterpret_cast<uint32_t*>(to + (o / kTileSide * steps_ + step) * kTile),
                         reinterpret_cast<const uint32_t*>(rows + step * kDepth), results_ / 2);
      }
    }
  }

  // From the sums of one block of inputs and outputs to the next: those of all taps.
  int64_t block() const { return places_.taps() * kBlock * kBlock; }
  int64_t block_of(int64_t i, int64_t o) const { return (i / kBlock * (outs_ / kBlock) + o / kBlock) * block(); }

  void multiply(float* sums, bool add, const uint16_t* inputs, const uint16_t* gradients) const {
    tiles_.begin();
    const int64_t some = places_.taps() > 1 ? kSteps : steps_;
    for (int64_t i = 0; i < ins_; i += kBlock) {
      for (int64_t o = 0; o < outs_; o += kBlock) {
        for (int64_t step = 0; step < steps_; step += some) {
          const TileMatrix right{gradients + (o / kTileSide * steps_ + step) * kTile, kDepth * 2, steps_ * kTile * 2,
                                 right_.data()};
          for (int64_t tap = 0; tap < places_.taps(); ++tap) {
            const TileMatrix left{inputs + i * row_ + step * kDepth + places_.offset(tap), row_ * 2,
                                  kTileSide * row_ * 2, left_.data()};
            tiles_.multiply(sums + block_of(i, o) + tap * kBlock * kBlock, kBlock, add || step > 0, left, right,
                            std::min(some, steps_ - step));
          }
        }
      }
    }
    tiles_.end();
  }

  void finish(const float* sums, int64_t o, float* d_weight) const {
    for (int64_t i = 0; i < k_.in_channels; ++i) {
      const float* from = sums + block_of(i, o) + i % kBlock * kBlock + o % kBlock;
      for (int64_t tap = 0; tap < places_.taps(); ++tap) *d_weight++ = from[tap * kBlock * kBlock];
    }
  }

  const Tiles& tiles_;
  const Convolution& k_;
  const Places places_;
  const int64_t ins_, outs_;     // in whole blocks
  const int64_t samples_;        // together
  const int64_t row_, results_;  // places of a channel, results of an output
  const int64_t steps_;
  std::vector<int64_t> left_, right_;
};

}  // namespace

void convolve(const Tiles& tiles, const Convolution& k, const float* x, const float* weight, float* out) {
  Product(tiles, k, plain_weight(k, weight)).run(x, out);
}

void convolve_input_gradient(const Tiles& tiles, const Convolution& k, const float* d_out, const float* weight,
                             float* d_x) {
  const Convolution sizes = turned(k);
  Product(tiles, sizes, turned_weight(k, weight)).run(d_out, d_x);
}

void convolve_weight_gradient(const Tiles& tiles, const Kernels& kernels, const Convolution& k, const float* x,
                              const float* d_out, float* d_weight) {
  Gradient(tiles, k).run(kernels, x, d_out, d_weight);
}

}  // namespace ghostnet
