#include "upsample.h"

#include <algorithm>

#include "buffers.h"
#include "geometry.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

// Elements that a thread works on at a time: rows of a large map are shared out.
constexpr int64_t kBand = 1 << 16;

// Calls work(map, first row, end) for all rows of all maps of so many pixels; start() makes what each thread works with.
template <typename Start>
void over_rows(int64_t maps, int64_t height, int64_t width, const Start& start) {
  const int64_t rows = std::clamp<int64_t>(kBand / width, 1, height), bands = divide_up(height, rows);
  parallel(maps * bands, std::max<int64_t>(1, (1 << 14) / (rows * width)), [&](Parts& parts) {
    auto work = start();
    for (int64_t i; parts.next(&i);) {
      const int64_t first = i % bands * rows;
      work(i / bands, first, std::min(first + rows, height));
    }
  });
}

// Rows of one map, stretched to the width of the result; the last two are kept.
class StretchedRows {
 public:
  StretchedRows(const Kernels& kernels, const Resampling& columns)
      : kernels_(kernels), columns_(columns), rows_(2 * columns.outputs) {}

  void begin(const float* map) {
    map_ = map;
    held_[0] = held_[1] = -1;
  }

  // Where row y is, in `values`.
  int64_t at(int64_t y) {
    const int64_t place = y % 2 * columns_.outputs;
    if (held_[y % 2] != y) {
      kernels_.stretch(rows_.get() + place, map_ + y * columns_.inputs, columns_);
      held_[y % 2] = y;
    }
    return place;
  }

  const float* values() const { return rows_.get(); }

 private:
  const Kernels& kernels_;
  const Resampling columns_;
  Scratch rows_;
  const float* map_ = nullptr;
  int64_t held_[2] = {-1, -1};
};

}  // namespace

Line::Line(int64_t inputs, int64_t outputs)
    : inputs_(inputs),
      outputs_(outputs),
      first_(outputs),
      second_(outputs),
      begin_(inputs),
      start_(inputs + 1),
      near_(outputs),
      far_(outputs) {
  for (int64_t o = 0; o < outputs; ++o) {
    // The centre of output o is at input (2 o + 1) inputs / (2 outputs) - 1/2: whole numbers, so that nothing is rounded.
    const int64_t position = std::max<int64_t>(0, (2 * o + 1) * inputs - outputs), whole = position / (2 * outputs);
    first_[o] = static_cast<int32_t>(whole);
    second_[o] = static_cast<int32_t>(position % (2 * outputs) ? std::min(whole + 1, inputs - 1) : whole);
    const double far = static_cast<double>(position % (2 * outputs)) / (2 * outputs);
    far_[o] = static_cast<float>(far);
    near_[o] = static_cast<float>(1 - far);
  }
  // Inputs and outputs go in the same order: those of one input follow each other.
  int64_t from = 0;
  for (int64_t i = 0; i < inputs; ++i) {
    while (from < outputs && second_[from] < i) ++from;
    begin_[i] = static_cast<int32_t>(from);
    for (int64_t o = from; o < outputs && first_[o] <= i; ++o) {
      shares_.push_back((first_[o] == i ? near_[o] : 0) + (second_[o] == i ? far_[o] : 0));
    }
    start_[i + 1] = static_cast<int32_t>(shares_.size());
    most_ = std::max(most_, count(i));
  }
}

Resampling Line::view() const {
  const bool multiple = outputs_ % inputs_ == 0;
  return {inputs_,      outputs_,     multiple ? outputs_ / inputs_ : 0, first_.data(), second_.data(),
          near_.data(), far_.data(), begin_.data(),                     start_.data(), shares_.data()};
}

void upsample(const Kernels& kernels, const Resize& sizes, const float* x, float* out) {
  const Line rows(sizes.height, sizes.out_height), columns(sizes.width, sizes.out_width);
  over_rows(sizes.maps, sizes.out_height, sizes.out_width, [&] {
    return [&, stretched = StretchedRows(kernels, columns.view())](int64_t map, int64_t row, int64_t end) mutable {
      stretched.begin(x + map * sizes.height * sizes.width);
      float* to = out + (map * sizes.out_height + row) * sizes.out_width;
      for (; row < end; ++row, to += sizes.out_width) {
        const int64_t offsets[] = {stretched.at(rows.first(row)), stretched.at(rows.second(row))};
        const float weights[] = {rows.near(row), rows.far(row)};
        kernels.combine(to, stretched.values(), sizes.out_width, {2, offsets, weights});
      }
    };
  });
}

void upsample_gradient(const Kernels& kernels, const Resize& sizes, const float* d_out, float* d_x) {
  const Line rows(sizes.height, sizes.out_height), columns(sizes.width, sizes.out_width);
  const Resampling view = columns.view();
  std::vector<int64_t> offsets(rows.most());
  for (int64_t i = 0; i < rows.most(); ++i) offsets[i] = i * sizes.out_width;
  over_rows(sizes.maps, sizes.height, sizes.width, [&] {
    return [&, sum = Scratch(sizes.out_width)](int64_t map, int64_t row, int64_t end) mutable {
      float* to = d_x + (map * sizes.height + row) * sizes.width;
      for (; row < end; ++row, to += sizes.width) {
        const float* from = d_out + (map * sizes.out_height + rows.begin(row)) * sizes.out_width;
        const Taps taps{static_cast<int>(rows.count(row)), offsets.data(), rows.shares(row)};
        kernels.combine(sum.get(), from, sizes.out_width, taps);
        kernels.shrink(to, sum.get(), view);
      }
    };
  });
}

}  // namespace ghostnet
