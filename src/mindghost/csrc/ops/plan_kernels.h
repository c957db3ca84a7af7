// Loops over maps of a plan (plan.h), compiled once for each instruction set (plan_kernels.cpp) and chosen at run time.
#pragma once

#include <cstdint>

namespace ghostnet {

// Channels that lie side by side: a pixel of a map is so many values, one of each channel.
constexpr int kLanes = 8;

// Values of a tap of a depthwise convolution: its weight of each channel, twice over, for vectors of two pixels.
constexpr int kTapLanes = 2 * kLanes;

enum class Activation : int { kNone, kRelu, kHardSigmoid, kSigmoid };

// Dense sums for up to `tile_channels` channels of neighbouring pixels:
// out[b * out_plane + p * kLanes + l] = activation(bias[c] + sum over t of weights[t][c] * in[taps[t] + p * step] + other),
// with c = b * kLanes + l.
struct Panel {
  const float* in;
  const int64_t* taps;
  int64_t count;         // of taps
  int step;              // values from one pixel of the input to the next: 1, 2, kLanes or 2 * kLanes
  const float* weights;  // for each tap as many as there are in whole vectors of `blocks` blocks
  const float* bias;
  const float* other;    // null: none
  int64_t other_plane;
  float* out;
  int64_t out_plane;
  int blocks;  // of kLanes channels
  int64_t pixels;
  Activation activation;
};

// A depthwise convolution of one block of channels of one sample: rows [first, end) of the result.
struct DepthwiseRows {
  const float* in;
  int64_t height, width;  // of `in`
  const float* weights;   // kTapLanes for each tap
  const float* bias;      // kTapLanes
  const float* other;     // null: none; otherwise like `out`
  float* out;
  int64_t columns, first, end;
  int kernel_height, kernel_width, stride, pad_height, pad_width;
  Activation activation;
  float* scratch;  // ((end - first - 1) * stride + kernel_height) rows of padded_row() values
  int64_t padded_row() const { return ((columns - 1) * stride + kernel_width) * kLanes; }
};

// Windows of pixels; what lies outside of the map does not count.
struct Windows {
  int64_t height, width, stride, pad_height, pad_width;
};

struct PlanKernels {
  const char* name;
  int vector;                       // values in a vector: weights are in whole vectors
  int tile_channels, tile_pixels;   // that are computed at once

  void (*convolve)(const Panel& panel);
  // What a panel does with sums that others made, for pixels [first, first + pixels): those of a pixel are a row of `row`.
  void (*finish)(const Panel& panel, const float* sums, int64_t row, int64_t first, int64_t pixels);
  void (*depthwise)(const DepthwiseRows& rows);

  // Of one block of channels of one sample: its means; y = x * gates; y = activation(x + shifts); y *= gates of a smaller map,
  // the nearest pixel of which counts; y = activation(x + other); means of windows of so many rows and columns that do not
  // overlap; the largest values of windows, which may, for so many rows and columns of them; rows [first, end) of a map that
  // is `factor` times as large, bilinear with half-pixel centres, cut to so many columns.
  void (*means)(float* means, const float* x, int64_t pixels);
  void (*gate)(float* y, const float* x, const float* gates, int64_t pixels);
  void (*shift)(float* y, const float* x, const float* shifts, int64_t pixels, Activation activation);
  void (*weigh)(float* y, int64_t height, int64_t width, const float* gates, int64_t rows, int64_t columns);
  void (*add)(float* y, const float* x, const float* other, int64_t pixels, Activation activation);
  void (*pool)(float* y, const float* x, int64_t height, int64_t width, int64_t window_height, int64_t window_width);
  void (*max_pool)(float* y, const float* x, int64_t height, int64_t width, int64_t rows, int64_t columns,
                   const Windows& windows);
  void (*enlarge)(float* y, const float* x, int64_t height, int64_t width, int64_t factor, int64_t columns, int64_t first,
                  int64_t end);
};

}  // namespace ghostnet
