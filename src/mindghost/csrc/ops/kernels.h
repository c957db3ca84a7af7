// Loops over single feature maps, compiled once for each instruction set (kernels.cpp) and chosen at run time.
#pragma once

#include <cstdint>

namespace ghostnet {

// Room after the last element of every scratch buffer: the loops write and read whole blocks of vectors.
constexpr int64_t kSlack = 64;

// Where the values that make one output are: in[offset[t]] for tap t, relative to the output's own position.
struct Taps {
  int count;
  const int64_t* offset;
  const float* weight;
};

// y = (x - mean) * scale + shift, then ReLU if wanted.
struct Affine {
  float mean, scale, shift;
  bool relu;
};

// Sums over a map that the gradient of a batch norm needs: of dz, and of dz * (x - mean).
struct Sums {
  double gradient, product;
};

// Samples, or channels of one, that are worked on together where that pays: as many as a vector of AVX2 has elements.
// A pixel of theirs is kTogether values that lie side by side, one of each.
constexpr int kTogether = 8;

// Pixels that `window` computes at once, and what `window_gradient` does: as many sums as there are registers for.
constexpr int kWindowPixels = 4, kGradientTaps = 3, kGradientOuts = 4;

// Winograd's F(4x4, 3x3): pixels of a patch of results in each direction, those of the input that they are made of, and
// products.
constexpr int kPatch = 4, kPatchInputs = kPatch + 2, kProducts = kPatchInputs * kPatchInputs;

// The products are values of polynomials at 0, kNear, -kNear, kFar, -kFar and infinity in each direction: the roots of 1/2
// and 2. The usual points, 1 and 2, make the largest error five times, the mean one twice as large.
constexpr float kNear = 0.70710678f, kFar = 1.41421356f;

// A dense convolution's input: channels `plane` elements apart, rows `row` elements apart.
struct Window {
  int64_t channels, kernel_height, kernel_width, plane, row;
};

// A part of the gradient of a convolution's result, outputs `plane` and rows `row` elements apart, and of its input.
struct GradientWindow {
  int64_t rows, columns, plane, row, in_row;
};

// An update: gradient' = gradient * factor + weight * decay; moment' = moment * momentum + gradient';
// weight' = weight - rate * (gradient' * gradient_share + moment' * moment_share).
struct MomentumStep {
  float factor, decay, momentum, rate, gradient_share, moment_share;
};

// An update by RMSprop in TensorFlow's form: gradient' = gradient * factor + weight * decay;
// square' = (square + shift) * alpha + gradient'^2 * (1 - alpha);
// moment' = moment * momentum + rate * gradient' / sqrt(square'); weight' = weight - moment'.
struct RmspropStep {
  float factor, decay, rate, alpha, momentum, shift;
};

// An update by Adam with its decay apart (AdamW): gradient' = gradient * factor;
// mean' = mean * beta1 + gradient' * (1 - beta1); square' = square * beta2 + gradient'^2 * (1 - beta2);
// the direction is (mean' / correction1) / (eps + sqrt(square' / correction2)) + weight * decay, and
// weight' = weight - rate * direction.
struct AdamStep {
  float factor, decay, rate, beta1, beta2, eps, correction1, correction2;
};

// A row of pixels made of another one by linear interpolation: output o is near[o] of input first[o] and far[o] of input
// second[o]. Input i went to the outputs from begin[i] on, with shares[start[i]] to shares[start[i + 1] - 1].
struct Resampling {
  int64_t inputs, outputs;
  int64_t factor;  // outputs of each input; 0 if that is no whole number
  const int32_t *first, *second;
  const float *near, *far;
  const int32_t *begin, *start;
  const float* shares;
};

// Integers that values are rounded to: one of them stands for so much, and they go from `lowest` to `highest`.
struct Levels {
  float scale, lowest, highest;
};

// What a set of loops computes at once: as many sums as there are registers for.
struct Blocking {
  int window_outs;                         // outputs of `window`, with kWindowPixels pixels of each
  int multiply_vectors, multiply_outs;     // of `multiply`; kTogether is a multiple of its outputs
};

struct Kernels {
  const char* name;
  Blocking at_once;

  // Sum of x, and of the squared differences from the map's own mean.
  void (*moments)(const float* x, int64_t size, double* sum, double* squares);

  double (*sum)(const float* x, int64_t size);

  // Sum of x * y.
  double (*product)(const float* x, const float* y, int64_t size);

  // y = factor * x.
  void (*scale)(float* y, const float* x, int64_t size, float factor);

  // y = affine(x), + residual unless that is null.
  void (*affine)(float* y, const float* x, const float* residual, int64_t size, Affine affine);

  // dz = dy where the ReLU of affine(x) lets it through; its sums. dz may be null, or dy itself.
  Sums (*norm_sums)(float* dz, const float* dy, const float* x, int64_t size, Affine affine);

  // dx = factor * (dz - dz_mean - (x - mean) * slope), dz as above from dy and ReLU.
  void (*norm_gradient)(float* dx, const float* dy, const float* x, int64_t size, Affine affine,
                        float factor, float dz_mean, float slope);

  // y += x.
  void (*add)(float* y, const float* x, int64_t size);

  // out[r][c] = sum over taps of weight * in[r * in_stride + c + offset]. Rows of `out` follow each other without
  // gaps and are written in order; up to kSlack elements after the last are overwritten.
  void (*correlate)(float* out, int64_t rows, int64_t columns, const float* in, int64_t in_stride, Taps taps);

  // sums[t] += sum over rows and columns of gradient[r][c] * in[r * in_stride + c + offset[t]]. Beyond `columns`,
  // each row of the gradient has zeros up to the next multiple of 8.
  void (*correlate_gradient)(double* sums, const float* gradient, int64_t gradient_stride, int64_t rows,
                             int64_t columns, const float* in, int64_t in_stride, Taps taps);

  // A dense convolution of kTogether samples: out[o * out_plane + p] = sum over channels and kernel of weight * in, for
  // up to kWindowPixels pixels p of one row, and up to `window_outs` outputs o, whose weights lie side by side.
  void (*window)(float* out, int64_t out_plane, const float* in, const float* weights, const Window& window,
                 int pixels, int outs);

  // The left sides of a patch's products, from its inputs. Product i goes to to[i * step].
  void (*to_products)(float* to, int64_t step, const float* in, int64_t row);

  // The way back: a patch's results from the sums of its products, up to `rows` rows and `columns` columns of them.
  void (*from_products)(float* out, int64_t row, const float* from, int64_t step, int rows, int columns);

  // The gradient of the products' sums from that of all of a patch's results: the other way through `from_products`.
  void (*to_gradients)(float* to, int64_t step, const float* d_out, int64_t row);

  // sums[o * sums_row + i] += sum over `count` pixels of gradients[o] * in[i], where each pixel has kTogether channels
  // side by side, for up to `multiply_outs` outputs o and up to `multiply_vectors` times kTogether inputs i, of which
  // each kTogether are `plane` elements apart.
  void (*multiply)(float* sums, int64_t sums_row, const float* gradients, const float* in, int64_t plane, int64_t count,
                   int vectors, int outs);

  // sums[t][o] += sum over rows and columns of gradient[o] * in shifted by t pixels, sample by sample, for up to
  // kGradientTaps shifts t and kGradientOuts outputs o.
  void (*window_gradient)(float* sums, const float* gradient, const float* in, const GradientWindow& window, int taps,
                          int outs);

  // Sum of (x * factor)^2.
  double (*squares)(const float* x, int64_t size, float factor);

  // One update of the weights and their moments.
  void (*momentum)(float* weight, float* moment, const float* gradient, int64_t size, MomentumStep step);

  // The same by RMSprop and by Adam.
  void (*rmsprop)(float* weight, float* square, float* moment, const float* gradient, int64_t size, RmspropStep step);
  void (*adam)(float* weight, float* mean, float* square, const float* gradient, int64_t size, AdamStep step);

  // Adam's direction, and its mean and square updated; and weight -= rate * direction.
  void (*adam_direction)(float* direction, const float* weight, float* mean, float* square, const float* gradient,
                         int64_t size, AdamStep step);
  void (*descend)(float* weight, const float* direction, int64_t size, float rate);

  // y += (x - y) * share.
  void (*approach)(float* y, const float* x, int64_t size, float share);

  // y = x / keep, or 0 where the hash of key and position, first + i, is below the rate (`Mask` in models/layers.py).
  void (*drop)(float* y, const float* x, int64_t size, uint32_t first, uint32_t key, float rate, float keep);

  // to[i * kTogether + l] = rows[l][i] for `count` elements of kTogether rows, and the way back.
  void (*interleave)(float* to, const float* const* rows, int64_t count);
  void (*separate)(float* const* rows, const float* from, int64_t count);

  // y[i] = sum over taps of weight * x[offset + i].
  void (*combine)(float* y, const float* x, int64_t size, Taps taps);

  // Of each of `count` columns of `rows` values, which are `row` elements apart: the largest one, exponentials of what
  // all of them have less than it, `to_row` elements apart, and the exponentials' sum. There is room for whole vectors.
  void (*soft_max)(float* top, float* total, float* to, int64_t to_row, const float* x, int64_t row, int64_t rows,
                   int64_t count);

  // y = the natural logarithm of x, for x from 1 on.
  void (*logarithm)(float* y, const float* x, int64_t size);

  // The smallest and largest of x. A value that is not a number is neither, but where it comes first.
  void (*range)(const float* x, int64_t size, float* lowest, float* highest);

  // y = the value of the level that is nearest to x, halves to the even one.
  void (*quantize)(float* y, const float* x, int64_t size, Levels levels);

  // dx = dy where x lies no further than half a level outside of the levels, else 0.
  void (*quantize_gradient)(float* dx, const float* dy, const float* x, int64_t size, Levels levels);

  // A row of another width, and the gradient of the first row from that of the second.
  void (*stretch)(float* out, const float* in, const Resampling& columns);
  void (*shrink)(float* d_in, const float* d_out, const Resampling& columns);
};

}  // namespace ghostnet
