// The operators, as `mindspore.ops.Custom(..., func_type="aot")` calls them.
//
// All arguments are float32 tensors, if nothing else is said, inputs first. `options` says which of those in brackets are there:
//   ghostnet_forward   options, x, [NORM1], [weight], [NORM2], [residual] -> out, [STATE1], [STATE2]
//   ghostnet_evaluate  options, x, [NORM1], [weight], [NORM2], [residual] -> out
//   ghostnet_backward  options, x, d_out, [SAVED1], [weight], [SAVED2] -> d_x, [GRAD1], [d_weight], [GRAD2]
// with NORM = gamma, beta, running mean, running variance;  STATE = batch mean, 1 / deviation, running mean, running
// variance;  SAVED = gamma, beta, batch mean, 1 / deviation;  GRAD = d_gamma, d_beta. With the option Running, SAVED =
// gamma, beta, running mean, running variance, which do not depend on x: the gradient is that of evaluation. With Frozen,
// too, the gradients of weights are zeros.
//   ghostnet_means            x -> means
//   ghostnet_means_gradient   x, d_means -> d_x
//   ghostnet_gate             x, gates -> y
//   ghostnet_gate_gradient    x, gates, d_y -> d_x, d_gates
//   ghostnet_convolution                   settings, x, weight -> out
//   ghostnet_convolution_input_gradient    settings, x, d_out, weight -> d_x
//   ghostnet_convolution_weight_gradient   settings, x, d_out, weight -> d_weight
// whose settings are the rows of padding above and below, its columns left and right, and whether products are in bfloat16.
//   ghostnet_max_pool            x -> out
//   ghostnet_max_pool_gradient   x, d_out -> d_x
//   ghostnet_upsample            x, rows, columns -> out, of as many rows and columns as there are values in these two
//   ghostnet_upsample_gradient   d_out, rows, columns -> d_x, likewise
//   ghostnet_pixel_losses            options, logits, labels, weights -> losses, their sum, sum of the labels' weights
//   ghostnet_pixel_losses_gradient   options, logits, labels, weights, d_losses, d_sum -> d_logits
// of which the labels are int32, and options are the label that is ignored, and the share of label smoothing.
//   ghostnet_drop                options, x, key -> out; the key is int32, options are the rate, and 1 less it.
//   ghostnet_quantize            settings, x, low, high -> y; settings are those of MapRounding, in quantize.h
//   ghostnet_quantize_trained    settings, x, low, high -> y, and the range with that of x, in which y is rounded
//   ghostnet_quantize_gradient   settings, x, d_y, low, high -> d_x
//   ghostnet_quantize_weight     settings, weight -> y; settings are the smallest largest weight, and the levels above 0
//   ghostnet_quantize_bias       settings, weight settings, bias, weight, low, high -> y, of the layer's input
//   ghostnet_sum_over_ranks      x1, x2, ... -> their sums over all processes; after ghostnet_join_ranks
//   ghostnet_square_sum          factor, gradient1, gradient2, ... -> sum of squares of what is times `factor`
//   ghostnet_momentum, ghostnet_rmsprop, ghostnet_adam, ghostnet_lamb
//       settings, rates, factor, decays, gradient1, ..., weight1, ..., first1, ..., [second1, ...] -> the first rate
// of which the weights and the optimizer's own numbers are changed in place; see updates.h. `settings` are momentum and
// whether it is Nesterov's; alpha, momentum, shift; or the two betas, eps, the corrections, LAMB's largest ratio. `rates` are
// one for all weights, or one for each.
//   ghostnet_average             share, value1, ..., average1, ... -> the share; averages are changed in place
// They return 0, or what `check` found wrong.
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "bfloat16.h"
#include "chain.h"
#include "convolution.h"
#include "dropout.h"
#include "instruction_sets.h"
#include "max_pool.h"
#include "pixel_loss.h"
#include "quantize.h"
#include "shared_sum.h"
#include "squeeze_excite.h"
#include "thread_pool.h"
#include "tiles.h"
#include "updates.h"
#include "upsample.h"

namespace ghostnet {

#define LOOPS(set) extern const Kernels kernels_##set;
GHOSTNET_EACH_SET(LOOPS)
#undef LOOPS

// The loops that this machine can run, the best ones last.
std::vector<const Kernels*> usable_kernels() {
#define LOOPS(set) &kernels_##set,
  return usable<Kernels>({GHOSTNET_EACH_SET(LOOPS)});
#undef LOOPS
}

const Kernels& kernels() {
  static const Kernels& best = *usable_kernels().back();
  return best;
}

namespace {

// The places in `options`. Python fills them by these names, in the order that ghostnet_options says.
#define GHOSTNET_OPTIONS(OPTION)                                                                                      \
  OPTION(First) OPTION(Convolution) OPTION(Second) OPTION(Residual) OPTION(Stride) OPTION(PadHeight) OPTION(PadWidth) \
  OPTION(Relu1) OPTION(Eps1) OPTION(Momentum1) OPTION(Relu2) OPTION(Eps2) OPTION(Momentum2) OPTION(Running)           \
  OPTION(Frozen)
#define PLACE(name) k##name,
#define NAME(name) #name " "
enum Option { GHOSTNET_OPTIONS(PLACE) kOptions };
constexpr const char* kOptionNames = GHOSTNET_OPTIONS(NAME);
#undef PLACE
#undef NAME

// MindSpore's arguments, one after the other.
class Arguments {
 public:
  // `integers`: the place of one that is int32, if there is any.
  Arguments(int count, void** values, int* dims, int64_t** shapes, const char** types, int integers = -1)
      : count_(count), values_(values), dims_(dims), shapes_(shapes), types_(types), integers_(integers) {}

  bool valid() const {
    for (int i = 0; i < count_; ++i) {
      if (std::strcmp(types_[i], i == integers_ ? "int32" : "float32") != 0) return false;
    }
    return true;
  }

  const int64_t* shape() const { return shapes_[next_]; }
  // Maps of the next tensor (N, C, H, W), and the elements of one.
  int64_t maps() const { return shape()[0] * shape()[1]; }
  int64_t map_size() const { return shape()[2] * shape()[3]; }
  // Elements of the next tensor.
  int64_t elements() const {
    return std::accumulate(shape(), shape() + dims_[next_], int64_t{1}, std::multiplies<int64_t>());
  }
  float* take() { return static_cast<float*>(values_[next_++]); }
  const int32_t* take_integers() { return static_cast<const int32_t*>(values_[next_++]); }
  float* take_if(bool there) { return there ? take() : nullptr; }
  int left() const { return count_ - next_; }
  bool all_taken() const { return next_ == count_; }

 private:
  const int count_;
  void** const values_;
  int* const dims_;
  int64_t** const shapes_;
  const char** const types_;
  const int integers_;
  int next_ = 0;
};

// What forward and backward share: options, x, and the sizes that follow from them.
Chain begin_chain(Arguments& arguments, const float** options) {
  Chain chain{};
  *options = arguments.take();
  const float* o = *options;
  chain.first = o[kFirst] != 0;
  chain.convolution = o[kConvolution] != 0;
  chain.second = o[kSecond] != 0;
  chain.running = o[kRunning] != 0;
  chain.frozen = chain.running && o[kFrozen] != 0;
  const int64_t* shape = arguments.shape();
  chain.batch = shape[0];
  chain.channels = shape[1];
  chain.map = {shape[2], shape[3], 1, 1, 1, 0, 0};
  if (chain.convolution) {
    chain.map.stride = static_cast<int64_t>(o[kStride]);
    chain.map.pad_height = static_cast<int64_t>(o[kPadHeight]);
    chain.map.pad_width = static_cast<int64_t>(o[kPadWidth]);
  }
  chain.norm1.relu = o[kRelu1] != 0;
  chain.norm1.eps = o[kEps1];
  chain.norm1.momentum = o[kMomentum1];
  chain.norm2.relu = o[kRelu2] != 0;
  chain.norm2.eps = o[kEps2];
  chain.norm2.momentum = o[kMomentum2];
  chain.x = arguments.take();
  return chain;
}

void take_weight(Arguments& arguments, Chain* chain) {
  if (!chain->convolution) return;
  const int64_t* shape = arguments.shape();
  chain->multiplier = shape[0] / chain->channels;
  chain->map.kernel_height = shape[2];
  chain->map.kernel_width = shape[3];
  chain->weight = arguments.take();
}

// The next arguments, one for each pointer; null, and none is taken, unless they are there.
template <typename... Pointers>
void take_each(Arguments& arguments, bool there, Pointers&... pointers) {
  ((pointers = arguments.take_if(there)), ...);
}

void take_norm(Arguments& arguments, bool there, Norm* n) {
  take_each(arguments, there, n->gamma, n->beta, n->running_mean, n->running_variance);
}

void take_state(Arguments& arguments, bool there, Norm* n) {
  take_each(arguments, there, n->mean, n->inverse, n->new_mean, n->new_variance);
}

void take_saved(Arguments& arguments, bool there, Norm* n) {
  take_each(arguments, there, n->gamma, n->beta, n->mean, n->inverse);
}

// 1 / deviation of each channel, from the running variance that was taken in its place; the norm's, from then on.
std::vector<float> with_inverses(Norm* n, int64_t channels) {
  std::vector<float> inverses(n->inverse ? channels : 0);
  for (size_t c = 0; c < inverses.size(); ++c) {
    inverses[c] = static_cast<float>(1 / std::sqrt(static_cast<double>(n->inverse[c]) + n->eps));
  }
  n->inverse = inverses.data();
  return inverses;
}

void take_gradient(Arguments& arguments, bool there, Norm* n) {
  take_each(arguments, there, n->d_gamma, n->d_beta);
}

// The inputs of a forward pass, and its result.
Chain take_forward(Arguments& arguments) {
  const float* options;
  Chain chain = begin_chain(arguments, &options);
  take_norm(arguments, chain.first, &chain.norm1);
  take_weight(arguments, &chain);
  take_norm(arguments, chain.second, &chain.norm2);
  const float* residual = arguments.take_if(chain.first && chain.second);
  chain.residual = options[kResidual] != 0 ? residual : nullptr;
  chain.out_channels = arguments.shape()[1];
  chain.out = arguments.take();
  return chain;
}

// What the operators of a dense convolution take.
struct ConvolutionInputs {
  Convolution sizes;
  bool bfloat16;  // products
  const float *x, *d_out, *weight;
};

// `gradient`: that of the result comes before the weights.
ConvolutionInputs take_convolution(Arguments& arguments, bool gradient) {
  ConvolutionInputs inputs{};
  const float* settings = arguments.take();
  const int64_t* x = arguments.shape();
  inputs.x = arguments.take();
  inputs.d_out = arguments.take_if(gradient);
  const int64_t* weight = arguments.shape();
  inputs.weight = arguments.take();
  const int64_t pad_height = static_cast<int64_t>(settings[0]), pad_width = static_cast<int64_t>(settings[1]);
  inputs.bfloat16 = settings[2] != 0;
  inputs.sizes = {x[0], x[1], weight[0], {x[2], x[3], weight[2], weight[3], 1, pad_height, pad_width}};
  return inputs;
}

// What both operators of a pixel's loss begin with.
PixelLoss take_pixel_loss(Arguments& arguments) {
  PixelLoss loss{};
  const float* options = arguments.take();
  loss.ignored = static_cast<int32_t>(options[0]);
  loss.smoothing = options[1];
  loss.batch = arguments.shape()[0];
  loss.classes = arguments.shape()[1];
  loss.pixels = arguments.map_size();
  loss.logits = arguments.take();
  loss.labels = arguments.take_integers();
  loss.weights = arguments.take();
  return loss;
}

enum { kDone, kWrongType, kWrongCount, kFailed };

// Runs an operator; no exception leaves it.
template <typename Operator>
int guarded(Arguments arguments, Operator run) {
  if (!arguments.valid()) return kWrongType;
  try {
    return run(arguments);
  } catch (const std::exception&) {
    return kFailed;
  }
}

}  // namespace
}  // namespace ghostnet

using ghostnet::Arguments;

#define GHOSTNET_OPERATOR(name)                                                                                    \
  static int name##_run(Arguments& arguments);                                                                     \
  extern "C" int name(int count, void** values, int* dims, int64_t** shapes, const char** types, void*, void*) {                                                                                     \
    return ghostnet::guarded(Arguments(count, values, dims, shapes, types), name##_run);                     \
  }                                                                                                                \
  static int name##_run(Arguments& arguments)

GHOSTNET_OPERATOR(ghostnet_forward) {
  ghostnet::Chain chain = ghostnet::take_forward(arguments);
  ghostnet::take_state(arguments, chain.first, &chain.norm1);
  ghostnet::take_state(arguments, chain.second, &chain.norm2);
  if (!arguments.all_taken()) return ghostnet::kWrongCount;
  forward(ghostnet::kernels(), chain);
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_evaluate) {
  const ghostnet::Chain chain = ghostnet::take_forward(arguments);
  if (!arguments.all_taken()) return ghostnet::kWrongCount;
  evaluate(ghostnet::kernels(), chain);
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_backward) {
  const float* options;
  ghostnet::Chain chain = ghostnet::begin_chain(arguments, &options);
  chain.out_channels = arguments.shape()[1];
  chain.d_out = arguments.take();
  ghostnet::take_saved(arguments, chain.first, &chain.norm1);
  ghostnet::take_weight(arguments, &chain);
  ghostnet::take_saved(arguments, chain.second, &chain.norm2);
  std::vector<float> inverses1, inverses2;
  if (chain.running) {
    inverses1 = ghostnet::with_inverses(&chain.norm1, chain.channels);
    inverses2 = ghostnet::with_inverses(&chain.norm2, chain.channels * chain.multiplier);
  }
  chain.d_x = arguments.take();
  ghostnet::take_gradient(arguments, chain.first, &chain.norm1);
  chain.d_weight = arguments.take_if(chain.convolution);
  ghostnet::take_gradient(arguments, chain.second, &chain.norm2);
  if (!arguments.all_taken()) return ghostnet::kWrongCount;
  backward(ghostnet::kernels(), chain);
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_means) {
  const int64_t maps = arguments.maps(), size = arguments.map_size();
  const float* x = arguments.take();
  means(ghostnet::kernels(), maps, size, x, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_means_gradient) {
  const int64_t maps = arguments.maps(), size = arguments.map_size();
  arguments.take();  // x, for its shape
  const float* d_means = arguments.take();
  ghostnet::means_gradient(maps, size, d_means, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_gate) {
  const int64_t maps = arguments.maps(), size = arguments.map_size();
  const float* x = arguments.take();
  const float* gates = arguments.take();
  gate(ghostnet::kernels(), maps, size, x, gates, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_gate_gradient) {
  const int64_t maps = arguments.maps(), size = arguments.map_size();
  const float* x = arguments.take();
  const float* gates = arguments.take();
  const float* d_y = arguments.take();
  float* d_x = arguments.take();
  gate_gradient(ghostnet::kernels(), maps, size, x, gates, d_y, d_x, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_convolution) {
  const ghostnet::ConvolutionInputs inputs = ghostnet::take_convolution(arguments, false);
  float* out = arguments.take();
  if (inputs.bfloat16) {
    convolve(ghostnet::best_tiles(), inputs.sizes, inputs.x, inputs.weight, out);
  } else {
    convolve(ghostnet::kernels(), inputs.sizes, inputs.x, inputs.weight, out);
  }
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_convolution_input_gradient) {
  const ghostnet::ConvolutionInputs inputs = ghostnet::take_convolution(arguments, true);
  float* d_x = arguments.take();
  if (inputs.bfloat16) {
    convolve_input_gradient(ghostnet::best_tiles(), inputs.sizes, inputs.d_out, inputs.weight, d_x);
  } else {
    convolve_input_gradient(ghostnet::kernels(), inputs.sizes, inputs.d_out, inputs.weight, d_x);
  }
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_convolution_weight_gradient) {
  const ghostnet::ConvolutionInputs inputs = ghostnet::take_convolution(arguments, true);
  float* d_weight = arguments.take();
  const ghostnet::Kernels& kernels = ghostnet::kernels();
  if (inputs.bfloat16) {
    convolve_weight_gradient(ghostnet::best_tiles(), kernels, inputs.sizes, inputs.x, inputs.d_out, d_weight);
  } else {
    convolve_weight_gradient(kernels, inputs.sizes, inputs.x, inputs.d_out, d_weight);
  }
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_max_pool) {
  const int64_t maps = arguments.maps(), height = arguments.shape()[2], width = arguments.shape()[3];
  const float* x = arguments.take();
  ghostnet::max_pool(maps, height, width, x, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_max_pool_gradient) {
  const int64_t maps = arguments.maps(), height = arguments.shape()[2], width = arguments.shape()[3];
  const float* x = arguments.take();
  const float* d_out = arguments.take();
  ghostnet::max_pool_gradient(maps, height, width, x, d_out, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_upsample) {
  ghostnet::Resize sizes{arguments.maps(), arguments.shape()[2], arguments.shape()[3], 0, 0};
  const float* x = arguments.take();
  sizes.out_height = arguments.shape()[0];
  arguments.take();
  sizes.out_width = arguments.shape()[0];
  arguments.take();
  upsample(ghostnet::kernels(), sizes, x, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_upsample_gradient) {
  ghostnet::Resize sizes{arguments.maps(), 0, 0, arguments.shape()[2], arguments.shape()[3]};
  const float* d_out = arguments.take();
  sizes.height = arguments.shape()[0];
  arguments.take();
  sizes.width = arguments.shape()[0];
  arguments.take();
  upsample_gradient(ghostnet::kernels(), sizes, d_out, arguments.take());
  return ghostnet::kDone;
}

// The place of the labels among the arguments of a pixel's loss.
constexpr int kLabels = 2;

extern "C" int ghostnet_pixel_losses(int count, void** values, int* dims, int64_t** shapes, const char** types, void*,
                                     void*) {
  return ghostnet::guarded(Arguments(count, values, dims, shapes, types, kLabels), [](Arguments& arguments) -> int {
    const ghostnet::PixelLoss loss = ghostnet::take_pixel_loss(arguments);
    float *losses = arguments.take(), *sum = arguments.take();
    pixel_losses(ghostnet::kernels(), loss, losses, sum, arguments.take());
    return ghostnet::kDone;
  });
}

extern "C" int ghostnet_pixel_losses_gradient(int count, void** values, int* dims, int64_t** shapes, const char** types,
                                              void*, void*) {
  return ghostnet::guarded(Arguments(count, values, dims, shapes, types, kLabels), [](Arguments& arguments) -> int {
    const ghostnet::PixelLoss loss = ghostnet::take_pixel_loss(arguments);
    const float *d_losses = arguments.take(), *d_sum = arguments.take();
    pixel_losses_gradient(ghostnet::kernels(), loss, d_losses, *d_sum, arguments.take());
    return ghostnet::kDone;
  });
}

extern "C" int ghostnet_drop(int count, void** values, int* dims, int64_t** shapes, const char** types, void*, void*) {
  constexpr int kKey = 2;
  return ghostnet::guarded(Arguments(count, values, dims, shapes, types, kKey), [=](Arguments& arguments) -> int {
    const float* options = arguments.take();
    const int64_t size = arguments.elements();
    const float* x = arguments.take();
    const uint32_t key = static_cast<uint32_t>(*arguments.take_integers());
    drop(ghostnet::kernels(), size, key, options[0], options[1], x, arguments.take());
    return ghostnet::kDone;
  });
}

static ghostnet::MapRounding take_rounding(Arguments& arguments) {
  const float* settings = arguments.take();
  return {settings[0], settings[1], static_cast<int>(settings[2])};
}

static ghostnet::Range take_range(Arguments& arguments) {
  const float low = *arguments.take();
  return {low, *arguments.take()};
}

static ghostnet::Rows take_rows(Arguments& arguments, const float* settings) {
  const int64_t outputs = arguments.shape()[0], size = arguments.elements() / outputs;
  return {outputs, size, arguments.take(), settings[0], static_cast<int>(settings[1])};
}

GHOSTNET_OPERATOR(ghostnet_quantize) {
  const ghostnet::MapRounding rounding = take_rounding(arguments);
  const int64_t size = arguments.elements();
  const float* x = arguments.take();
  const ghostnet::Range range = take_range(arguments);
  quantize(ghostnet::kernels(), size, x, range, rounding, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_quantize_trained) {
  const ghostnet::MapRounding rounding = take_rounding(arguments);
  const int64_t size = arguments.elements();
  const float* x = arguments.take();
  const ghostnet::Range before = take_range(arguments);
  const ghostnet::Range range = averaged(ghostnet::kernels(), size, x, before, rounding);
  quantize(ghostnet::kernels(), size, x, range, rounding, arguments.take());
  *arguments.take() = range.low;
  *arguments.take() = range.high;
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_quantize_gradient) {
  const ghostnet::MapRounding rounding = take_rounding(arguments);
  const int64_t size = arguments.elements();
  const float *x = arguments.take(), *d_y = arguments.take();
  const ghostnet::Range range = take_range(arguments);
  quantize_gradient(ghostnet::kernels(), size, x, d_y, range, rounding, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_quantize_weight) {
  const float* settings = arguments.take();
  const ghostnet::Rows rows = take_rows(arguments, settings);
  quantize_weight(ghostnet::kernels(), rows, arguments.take());
  return ghostnet::kDone;
}

GHOSTNET_OPERATOR(ghostnet_quantize_bias) {
  const ghostnet::MapRounding rounding = take_rounding(arguments);
  const float *settings = arguments.take(), *bias = arguments.take();
  const ghostnet::Rows rows = take_rows(arguments, settings);
  const ghostnet::Range range = take_range(arguments);
  quantize_bias(ghostnet::kernels(), rows, bias, range, rounding, arguments.take());
  return ghostnet::kDone;
}

extern "C" int ghostnet_square_sum(int count, void** values, int* dims, int64_t** shapes, const char** types, void*,
                                   void*) {
  return ghostnet::guarded(Arguments(count, values, dims, shapes, types), [=](Arguments& arguments) -> int {
    if (count < 2) return ghostnet::kWrongCount;
    const float factor = *arguments.take();
    std::vector<ghostnet::Weights> all(count - 2);
    for (int i = 0; i < count - 2; ++i) {
      all[i].size = arguments.elements();
      all[i].gradient = arguments.take();
    }
    *arguments.take() = static_cast<float>(square_sum(ghostnet::kernels(), all, factor));
    return ghostnet::kDone;
  });
}

// An operator that updates weights by what `update` does with (settings, factor, all weights).
template <typename Update>
static int updated(int count, void** values, int* dims, int64_t** shapes, const char** types, const Update& update) {
  return ghostnet::guarded(Arguments(count, values, dims, shapes, types), [&](Arguments& arguments) -> int {
    const float* settings = arguments.take();
    const int64_t rates = arguments.elements();
    const float *rate = arguments.take(), factor = *arguments.take();
    const int64_t heads = 4, tensors = arguments.elements();
    const float* decays = arguments.take();
    // Of each tensor: gradient, weight, and one or two numbers of the optimizer's.
    const int64_t kinds = tensors > 0 ? (count - heads - 1) / tensors : 0;
    if (count != heads + kinds * tensors + 1 || kinds < 3 || kinds > 4 || (rates != 1 && rates != tensors)) {
      return ghostnet::kWrongCount;
    }
    std::vector<ghostnet::Weights> all(tensors);
    for (int64_t i = 0; i < tensors; ++i) {
      all[i].size = arguments.elements();
      all[i].decay = decays[i];
      all[i].rate = rate[rates == 1 ? 0 : i];
      all[i].gradient = arguments.take();
    }
    for (ghostnet::Weights& each : all) each.weight = arguments.take();
    for (ghostnet::Weights& each : all) each.first = arguments.take();
    for (ghostnet::Weights& each : all) each.second = arguments.take_if(kinds == 4);
    update(settings, factor, all);
    *arguments.take() = *rate;
    return ghostnet::kDone;
  });
}

#define GHOSTNET_UPDATE(name)                                                                                          \
  static void name##_update(const float* settings, float factor, const std::vector<ghostnet::Weights>& all);           \
  extern "C" int name(int count, void** values, int* dims, int64_t** shapes, const char** types, void*, void*) {       \
    return updated(count, values, dims, shapes, types, name##_update);                                                 \
  }                                                                                                                    \
  static void name##_update(const float* settings, float factor, const std::vector<ghostnet::Weights>& all)

GHOSTNET_UPDATE(ghostnet_momentum) {
  const float momentum = settings[0];
  const bool nesterov = settings[1] != 0;
  update_momentum(ghostnet::kernels(), all,
                  {factor, 0, momentum, 0, nesterov ? 1.0f : 0.0f, nesterov ? momentum : 1.0f});
}

GHOSTNET_UPDATE(ghostnet_rmsprop) {
  update_rmsprop(ghostnet::kernels(), all, {factor, 0, 0, settings[0], settings[1], settings[2]});
}

static ghostnet::AdamStep adam_step(const float* settings, float factor) {
  return {factor, 0, 0, settings[0], settings[1], settings[2], settings[3], settings[4]};
}

GHOSTNET_UPDATE(ghostnet_adam) { update_adam(ghostnet::kernels(), all, adam_step(settings, factor)); }

GHOSTNET_UPDATE(ghostnet_lamb) { update_lamb(ghostnet::kernels(), all, adam_step(settings, factor), settings[5]); }

GHOSTNET_OPERATOR(ghostnet_average) {
  const float share = *arguments.take();
  std::vector<ghostnet::Average> all(arguments.left() / 2);
  for (ghostnet::Average& each : all) {
    each.size = arguments.elements();
    each.value = arguments.take();
  }
  for (ghostnet::Average& each : all) each.average = arguments.take();
  *arguments.take() = share;
  if (!arguments.all_taken()) return ghostnet::kWrongCount;
  update_averages(ghostnet::kernels(), all, share);
  return ghostnet::kDone;
}

// Of this process, once it has joined the others.
static std::unique_ptr<ghostnet::SharedSum> joined;

extern "C" int ghostnet_sum_over_ranks(int count, void** values, int* dims, int64_t** shapes, const char** types, void*,
                                       void*) {
  return ghostnet::guarded(Arguments(count, values, dims, shapes, types), [=](Arguments& arguments) -> int {
    std::vector<const float*> ins;
    std::vector<float*> outs;
    std::vector<int64_t> sizes;
    for (int i = 0; i < count / 2; ++i) {
      sizes.push_back(arguments.elements());
      ins.push_back(arguments.take());
    }
    for (int i = 0; i < count / 2; ++i) outs.push_back(arguments.take());
    if (!joined || count % 2) return ghostnet::kWrongCount;
    const bool done = joined->sum(ghostnet::kernels(), count / 2, ins.data(), sizes.data(), outs.data());
    return done ? ghostnet::kDone : ghostnet::kWrongCount;
  });
}

// The size of the file that so many processes share, to sum up so many values.
extern "C" int64_t ghostnet_shared_bytes(int ranks, int64_t values) {
  return ghostnet::SharedSum::bytes(ranks, values);
}

// From now on this process is one of those that share the file. Returns whether it could be opened.
extern "C" int ghostnet_join_ranks(const char* path, int rank, int ranks, int64_t values) {
  try {
    joined = std::make_unique<ghostnet::SharedSum>(path, rank, ranks, values);
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}

// Threads that all operators of this process use together.
extern "C" void ghostnet_set_threads(int count) { ghostnet::set_threads(count); }

// Names of the options in their order, each followed by a space; samples that lie together in memory: Python compares
// both with its own.
extern "C" const char* ghostnet_options() { return ghostnet::kOptionNames; }
extern "C" int ghostnet_samples_together() { return ghostnet::kTogether; }

// The instruction set in use.
extern "C" const char* ghostnet_kernels() { return ghostnet::kernels().name; }

// Whether products in bfloat16 are those of the processor.
extern "C" int ghostnet_bfloat16() { return ghostnet::amx_tiles() != nullptr; }
