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

struct Kernels {
  const char* name;

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
};

}  // namespace ghostnet
