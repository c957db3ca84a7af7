#include "plan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <new>
#include <thread>
#include <utility>

#include "instruction_sets.h"
#include "thread_pool.h"

namespace ghostnet {

#define LOOPS(set) extern const PlanKernels plan_kernels_##set;
GHOSTNET_EACH_SET(LOOPS)
#undef LOOPS

std::vector<const PlanKernels*> usable_plan_kernels() {
#define LOOPS(set) &plan_kernels_##set,
  return usable<PlanKernels>({GHOSTNET_EACH_SET(LOOPS)});
#undef LOOPS
}

namespace {

// Maps begin where a line of the cache does.
constexpr int64_t kAlignment = 16;
// Values of a dense layer's input that stay in the second-level cache, and of a depthwise layer's that stay in the first.
constexpr int64_t kPanelValues = 128 << 10, kBandValues = 8 << 10;
// Samples that a thread takes at once, and pixels of all samples together that small maps are filled up to.
constexpr int64_t kMostTogether = 16, kPixelsTogether = 392;
// Pixels and channels of products in bfloat16 that are made at once; of how many such pixels the sums are kept in the
// first-level cache; and the most pixels and values of their input that are rounded at once.
constexpr int64_t kBlock = 2 * kTileSide, kSums = 4 * kBlock, kRoundedPixels = 512, kRoundedValues = 128 << 10;
static_assert(kSideBySide == kLanes, "tiles.h knows how maps of a plan lie");

float* aligned(float* x) {
  const uintptr_t line = kAlignment * sizeof(float), address = reinterpret_cast<uintptr_t>(x);
  return reinterpret_cast<float*>((address + line - 1) / line * line);
}

bool is_flat(const PlanLayer& layer) {
  return layer.kernel_height == 1 && layer.kernel_width == 1 && layer.stride == 1;
}

// Blocks of the input up to the last one with a channel, and what they fill up to.
int64_t input_blocks(const PlanLayer& layer) { return layer.inputs.back() / kLanes + 1; }
int64_t depth(const PlanLayer& layer) { return up_to(input_blocks(layer) * kLanes, kDepth); }
// Pixels that are rounded at once.
int64_t rounded_pixels(const PlanLayer& layer) {
  return std::clamp(kRoundedValues / depth(layer) / kBlock * kBlock, kBlock, kRoundedPixels);
}

}  // namespace

// The threads of a run that share each layer. The first one goes from layer to layer and waits for what others took of it;
// others help when they come. So nobody waits for a thread that is not there.
class Plan::Crew {
 public:
  struct Stage {
    size_t part;
    int64_t layer, first, samples, items;
    std::atomic<int64_t> next{0}, done{0};
  };

  Crew(const Plan& plan, const Work& work, int64_t stages)
      : plan_(plan), work_(work), stages_(stages), owner_(std::this_thread::get_id()) {}

  bool is_owner() const { return std::this_thread::get_id() == owner_; }

  void lead(size_t part, int64_t layer, int64_t first, int64_t samples, int64_t items, float* scratch) {
    const int64_t at = published_.load(std::memory_order_relaxed);
    Stage& stage = stages_[at];
    stage.part = part;
    stage.layer = layer;
    stage.first = first;
    stage.samples = samples;
    stage.items = items;
    published_.store(at + 1, std::memory_order_release);
    take(&stage, scratch);
    for (int turns = 0; stage.done.load(std::memory_order_acquire) < items; ++turns) wait(turns);
  }

  void finish() { finished_.store(true, std::memory_order_release); }

  void help(float* scratch) {
    int turns = 0;
    for (int64_t seen = 0; !finished_.load(std::memory_order_acquire);) {
      const int64_t published = published_.load(std::memory_order_acquire);
      if (published == seen) {
        wait(turns++);
        continue;
      }
      turns = 0;
      seen = published;
      take(&stages_[published - 1], scratch);
    }
  }

 private:
  void take(Stage* stage, float* scratch);

  // For a short time it is not worth giving the core away.
  static void wait(int turns) {
    if (turns > 2000) std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  const Plan& plan_;
  const Work& work_;
  std::vector<Stage> stages_;
  std::atomic<int64_t> published_{0};
  std::atomic<bool> finished_{false};
  const std::thread::id owner_;
};

struct Plan::Work {
  const Layout& layout;
  const float* images;
  float* memory;
  float* scratch;
  int64_t threads;

  float* map(size_t part, int64_t index) const { return memory + layout.places[part][index]; }
};

void Plan::Crew::take(Stage* stage, float* scratch) {
  for (int64_t i; (i = stage->next.fetch_add(1, std::memory_order_relaxed)) < stage->items;) {
    plan_.compute(work_, stage->part, stage->layer, stage->first, stage->samples, i, stage->items, scratch);
    stage->done.fetch_add(1, std::memory_order_release);
  }
}

Plan::Plan(const PlanKernels& kernels, const Tiles* tiles, const int64_t* program, const float* weights)
    : kernels_(kernels), tiles_(tiles) {
  maps_ = *program++;
  layers_.resize(*program++);
  outputs_ = *program++;
  blocks_.assign(program, program + maps_);
  program += maps_;
  for (PlanLayer& layer : layers_) {
    layer.kind = static_cast<Kind>(program[0]);
    layer.in = {program[1], program[2]};
    layer.out = {program[3], program[4]};
    layer.blocks = program[5];
    layer.kernel_height = program[6];
    layer.kernel_width = program[7];
    layer.stride = program[8];
    layer.pad_height = program[9];
    layer.pad_width = program[10];
    layer.activation = static_cast<Activation>(program[11]);
    layer.other = {program[12], program[13]};
    const int64_t values = program[14], biases = program[15], inputs = program[16];
    program += 17;
    layer.inputs.assign(program, program + inputs);
    program += inputs;
    const bool by_tiles = is_rounded(layer);
    rounded_.push_back(by_tiles ? rounded(layer, weights) : Zeros<uint16_t>(0));
    if (biases > 0) pack(&layer, weights, weights + values);
    if (by_tiles) std::vector<float>().swap(layer.weights);
    weights += values + biases;
  }
}

// In the order in which the loops read them.
void Plan::pack(PlanLayer* layer, const float* weights, const float* bias) const {
  const int64_t taps = layer->kernel_height * layer->kernel_width, lanes = layer->blocks * kLanes;
  if (layer->kind == Kind::kDepthwise) {
    layer->weights.resize(layer->blocks * taps * kTapLanes);
    layer->bias.resize(layer->blocks * kTapLanes);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t block = lane / kLanes, l = lane % kLanes;
      for (int64_t twice = l; twice < kTapLanes; twice += kLanes) {
        for (int64_t t = 0; t < taps; ++t) {
          layer->weights[(block * taps + t) * kTapLanes + twice] = weights[lane * taps + t];
        }
        layer->bias[block * kTapLanes + twice] = bias[lane];
      }
    }
    return;
  }
  const int64_t count = static_cast<int64_t>(layer->inputs.size()) * taps, tile = kernels_.tile_channels;
  layer->weights.assign(up_to(lanes, kernels_.vector) * count, 0.0f);
  layer->bias.assign(up_to(lanes, kernels_.vector), 0.0f);
  std::copy_n(bias, lanes, layer->bias.begin());
  for (int64_t first = 0; first < lanes; first += tile) {
    const int64_t side = std::min(tile, lanes - first), row = up_to(side, kernels_.vector);
    float* to = layer->weights.data() + first * count;
    for (int64_t l = 0; l < side; ++l) {
      const float* from = weights + (first + l) * count;
      for (int64_t t = 0; t < count; ++t) to[t * row + l] = from[t];
    }
  }
}

// Whether it is made by products in bfloat16.
bool Plan::is_rounded(const PlanLayer& layer) const {
  return tiles_ && layer.kind == Kind::kDense && is_flat(layer) && blocks_[layer.in.map] > 0;
}

// For each kBlock outputs the steps of the sum, two tiles each: as a right matrix.
Zeros<uint16_t> Plan::rounded(const PlanLayer& layer, const float* weights) const {
  const int64_t count = layer.inputs.size(), steps = depth(layer) / kDepth, lanes = layer.blocks * kLanes;
  Zeros<uint16_t> made(up_to(lanes, kBlock) * steps * kDepth);
  for (int64_t o = 0; o < lanes; ++o) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t lane = layer.inputs[t], step = lane / kDepth, pair = lane % kDepth / 2;
      const int64_t tile = (o / kBlock * steps + step) * 2 + o % kBlock / kTileSide;
      tiles_->round(made.get() + ((tile * kTileSide + pair) * kTileSide + o % kTileSide) * 2 + lane % 2,
                    weights + o * count + t, 1);
    }
  }
  return made;
}

std::vector<Plan::Size> Plan::sizes(int64_t channels, int64_t height, int64_t width) const {
  std::vector<Size> made(maps_);
  made[0] = {height, width, channels};
  for (const PlanLayer& layer : layers_) made[layer.out.map] = size_of(layer, made);
  return made;
}

Plan::Size Plan::size_of(const PlanLayer& layer, const std::vector<Size>& sizes) const {
  const Size in = sizes[layer.in.map];
  Size out = in;
  switch (layer.kind) {
    case Kind::kPad:
      out.height = in.height + 2 * layer.pad_height;
      out.width = in.width + 2 * layer.pad_width;
      return out;
    case Kind::kDense:
    case Kind::kDepthwise:
    case Kind::kMaxPool:
      out.height = (in.height + 2 * layer.pad_height - layer.kernel_height) / layer.stride + 1;
      out.width = (in.width + 2 * layer.pad_width - layer.kernel_width) / layer.stride + 1;
      break;
    case Kind::kEnlarge: {
      const Size& most = sizes[layer.other.map];
      out.height = std::min(in.height * layer.kernel_height, most.height);
      out.width = std::min(in.width * layer.kernel_width, most.width);
      break;
    }
    case Kind::kMeans:
      out.height = out.width = 1;
      break;
    case Kind::kPool:
      out.height = in.height / std::min(layer.kernel_height, in.height);
      out.width = in.width / std::min(layer.kernel_width, in.width);
      break;
    default:
      break;
  }
  out.channels = 0;
  return out;
}

int64_t Plan::floats(const Layout& layout, int64_t map, int64_t samples) const {
  const Size& size = layout.sizes[map];
  return samples * size.pixels() * (size.channels ? size.channels : blocks_[map] * kLanes);
}

// Rows of a layer's result that are made at once; 0: all of them.
int64_t Plan::band(const PlanLayer& layer, const Size& out) const {
  if (layer.kind == Kind::kEnlarge) return std::clamp<int64_t>(kBandValues / (out.width * kLanes), 1, out.height);
  if (layer.kind != Kind::kDepthwise) return 0;
  const int64_t row = ((out.width - 1) * layer.stride + layer.kernel_width) * kLanes;
  const int64_t rows = std::max<int64_t>(1, (kBandValues / row - layer.kernel_height) / layer.stride + 1);
  return std::min(rows, out.height);
}

std::shared_ptr<const Plan::Layout> Plan::layout(int64_t channels, int64_t height, int64_t width, int64_t together) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (last_ && last_->channels == channels && last_->height == height && last_->width == width &&
      last_->parts.back().group == together) {
    return last_;
  }
  auto made = std::make_shared<Layout>();
  made->channels = channels;
  made->height = height;
  made->width = width;
  made->sizes = sizes(channels, height, width);
  split(made.get(), together);
  place(made.get());
  return last_ = made;
}

// Late layers have small maps and many weights: they are run on several samples at once.
void Plan::split(Layout* layout, int64_t together) const {
  const int64_t count = layers_.size();
  std::vector<int64_t> last(maps_, -1);
  for (int64_t i = 0; i < count; ++i) {
    for (const Span& span : {layers_[i].in, layers_[i].other, layers_[i].out}) {
      if (span.map >= 0) last[span.map] = i;
    }
  }
  layout->parts.push_back({0, count, 1});
  std::vector<bool> made(maps_, false);
  made[0] = true;
  for (int64_t i = 0; i + 1 < count; ++i) {
    made[layers_[i].out.map] = true;
    int64_t crossing = 0, map = -1;
    for (int64_t m = 0; m < maps_; ++m) {
      if (made[m] && last[m] > i) {
        ++crossing;
        map = m;
      }
    }
    // Where channels lie one after the other, no part begins.
    if (crossing != 1 || layout->sizes[map].channels) continue;
    const int64_t pixels = layout->sizes[map].pixels();
    const int64_t group = pixels == 1 ? together : std::clamp<int64_t>(kPixelsTogether / pixels, 1, together);
    if (group > layout->parts.back().group) {
      layout->parts.back().end = i + 1;
      layout->parts.push_back({i + 1, count, group, map});
    }
  }
  layout->parts.back().group = together;
}

void Plan::place(Layout* layout) const {
  layout->memory = 0;
  for (const PlanLayer& layer : layers_) {
    for (int64_t step = layout->lefts.size(); is_rounded(layer) && step < depth(layer) / kDepth; ++step) {
      layout->lefts.push_back(step * kDepth * 2);
      layout->rights.push_back(step * 2 * kTileSide * kDepth * 2);
    }
  }
  layout->scratch = 0;
  layout->taps.resize(layers_.size());
  for (size_t p = 0; p < layout->parts.size(); ++p) {
    const Part& part = layout->parts[p];
    std::vector<int64_t> last(maps_, -1), places(maps_, -1);
    for (int64_t i = part.first; i < part.end; ++i) {
      for (const Span& span : {layers_[i].in, layers_[i].other, layers_[i].out}) {
        if (span.map >= 0) last[span.map] = i;
      }
    }
    // What the next part, or the caller, gets stays.
    last[p + 1 < layout->parts.size() ? layout->parts[p + 1].boundary : maps_ - 1] = part.end;
    std::map<int64_t, int64_t> taken;  // place -> end
    const auto take = [&](int64_t map) {
      const int64_t size = up_to(floats(*layout, map, part.group) + kSlack, kAlignment);
      int64_t at = layout->memory;
      for (const auto& [begin, end] : taken) {
        if (begin - at >= size) break;
        at = end;
      }
      places[map] = at;
      taken[at] = at + size;
    };
    int64_t end = layout->memory;
    if (p > 0) take(part.boundary);
    for (int64_t i = part.first; i < part.end; ++i) {
      const PlanLayer& layer = layers_[i];
      if (places[layer.out.map] < 0) take(layer.out.map);
      for (const auto& [_, stop] : taken) end = std::max(end, stop);
      for (int64_t m = 0; m < maps_; ++m) {
        if (places[m] >= 0 && last[m] == i) taken.erase(places[m]);
      }
      const Size &in = layout->sizes[layer.in.map], &out = layout->sizes[layer.out.map];
      if (layer.kind == Kind::kDepthwise) {
        const int64_t rows = (band(layer, out) - 1) * layer.stride + layer.kernel_height;
        const int64_t row = ((out.width - 1) * layer.stride + layer.kernel_width) * kLanes;
        layout->scratch = std::max(layout->scratch, rows * row);
      }
      if (is_rounded(layer)) {
        const int64_t values = rounded_pixels(layer) * depth(layer);
        layout->scratch = std::max(layout->scratch, values / 2 + kSums * kBlock + kAlignment);
      } else if (layer.kind == Kind::kDense) {
        const int64_t pixel = in.channels ? 1 : kLanes;
        for (const int64_t lane : layer.inputs) {
          const int64_t first = in.channels ? lane * in.pixels()
                                            : lane / kLanes * part.group * in.pixels() * kLanes + lane % kLanes;
          for (int64_t y = 0; y < layer.kernel_height; ++y) {
            for (int64_t x = 0; x < layer.kernel_width; ++x) {
              layout->taps[i].push_back(first + (y * in.width + x) * pixel);
            }
          }
        }
      }
    }
    layout->memory = end;
    layout->places.push_back(std::move(places));
  }
}

void Plan::run(const float* images, int64_t count, int64_t channels, int64_t height, int64_t width, float* maps) {
  const int64_t workers = threads();
  const bool shared = count < workers;
  // Of a large last map no more than stays in the cache.
  const int64_t most = std::clamp<int64_t>(kPixelsTogether / size(channels, height, width).pixels(), 1, kMostTogether);
  const int64_t together = shared ? count : std::min(most, divide_up(count, workers));
  const std::shared_ptr<const Layout> layout = this->layout(channels, height, width, together);
  const auto answer = [&](const Work& work, int64_t first, int64_t samples) {
    const float* from = work.map(layout->parts.size() - 1, maps_ - 1);
    const int64_t pixels = layout->sizes.back().pixels();
    for (int64_t s = 0; s < samples; ++s) {
      for (int64_t c = 0; c < outputs_; ++c) {
        const float* of_channel = from + (c / kLanes * together + s) * pixels * kLanes + c % kLanes;
        float* to = maps + ((first + s) * outputs_ + c) * pixels;
        for (int64_t p = 0; p < pixels; ++p) to[p] = of_channel[p * kLanes];
      }
    }
  };
  const int64_t scratch = up_to(layout->scratch + kSlack, kAlignment), room = layout->memory + scratch + 2 * kAlignment;
  if (!shared || workers == 1) {
    std::atomic<bool> failed{false};
    parallel((count + together - 1) / together, 1, [&](Parts& parts) {
      try {
        Scratch memory(room);
        float* begin = aligned(memory.get());
        const Work work{*layout, images, begin, begin + layout->memory, 1};
        for (int64_t i; parts.next(&i);) {
          const int64_t samples = std::min(together, count - i * together);
          run_part(work, layout->parts.size() - 1, i * together, samples, nullptr);
          answer(work, i * together, samples);
        }
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    });
    if (failed) throw std::bad_alloc();
    return;
  }
  Scratch memory(room);
  std::vector<Scratch> scratches;
  for (int64_t i = 0; i < workers; ++i) scratches.emplace_back(scratch);
  std::atomic<size_t> used{1};
  float* begin = aligned(memory.get());
  const Work work{*layout, images, begin, scratches[0].get(), workers};
  Crew crew(*this, work, static_cast<int64_t>(layers_.size()) * count);
  parallel(workers, 1, [&](Parts&) {
    if (crew.is_owner()) {
      run_part(work, layout->parts.size() - 1, 0, count, &crew);
      crew.finish();
    } else {
      crew.help(scratches[used.fetch_add(1)].get());
    }
  });
  answer(work, 0, count);
}

void Plan::run_part(const Work& work, size_t part, int64_t first, int64_t count, Crew* crew) const {
  const Part& own = work.layout.parts[part];
  if (part > 0) {
    const Part& before = work.layout.parts[part - 1];
    const int64_t size = work.layout.sizes[own.boundary].pixels() * kLanes;
    for (int64_t done = 0; done < count; done += before.group) {
      const int64_t samples = std::min(before.group, count - done);
      run_part(work, part - 1, first + done, samples, crew);
      const float* from = work.map(part - 1, own.boundary);
      float* to = work.map(part, own.boundary);
      for (int64_t b = 0; b < blocks_[own.boundary]; ++b) {
        std::memcpy(to + (b * own.group + done) * size, from + b * before.group * size, samples * size * sizeof(float));
      }
    }
  }
  for (int64_t i = own.first; i < own.end; ++i) {
    const int64_t parts = items(work, i, count, work.threads);
    if (crew) {
      crew->lead(part, i, first, count, parts, work.scratch);
    } else {
      for (int64_t j = 0; j < parts; ++j) compute(work, part, i, first, count, j, parts, work.scratch);
    }
  }
}

// Into how many parts a layer's work is divided; what is computed does not depend on it.
int64_t Plan::items(const Work& work, int64_t index, int64_t samples, int64_t threads) const {
  const PlanLayer& layer = layers_[index];
  const Size &in = work.layout.sizes[layer.in.map], &out = work.layout.sizes[layer.out.map];
  switch (layer.kind) {
    case Kind::kPad:
      return (in.channels ? in.channels : layer.blocks) * samples;
    case Kind::kDense: {
      if (is_rounded(layer)) {
        const int64_t chunks = divide_up(samples * out.pixels(), rounded_pixels(layer));
        const int64_t blocks = divide_up(layer.blocks * kLanes, kBlock);
        return chunks * (threads > 1 ? std::min(blocks, divide_up(4 * threads, chunks)) : 1);
      }
      const int64_t tiles = (layer.blocks * kLanes + kernels_.tile_channels - 1) / kernels_.tile_channels;
      if (!is_flat(layer) || in.channels) return tiles * samples * out.height;
      const int64_t pixels = samples * out.pixels(), inputs = layer.inputs.size();
      int64_t chunks = (pixels * inputs + kPanelValues - 1) / kPanelValues;
      // Some parts for each thread, so that none waits long for another.
      if (threads > 1) chunks = std::max(chunks, (4 * threads + tiles - 1) / tiles);
      return tiles * std::clamp<int64_t>(chunks, 1, (pixels + kernels_.tile_pixels - 1) / kernels_.tile_pixels);
    }
    default: {
      const int64_t rows = band(layer, out);
      return layer.blocks * samples * (rows ? divide_up(out.height, rows) : 1);
    }
  }
}

void Plan::dense(const Work& work, const PlanLayer& layer, int64_t index, size_t part, int64_t samples, int64_t item,
                 int64_t items) const {
  const int64_t group = work.layout.parts[part].group;
  const Size &in = work.layout.sizes[layer.in.map], &out = work.layout.sizes[layer.out.map];
  const int64_t tile_blocks = kernels_.tile_channels / kLanes, tiles = (layer.blocks + tile_blocks - 1) / tile_blocks;
  const int64_t out_plane = group * out.pixels() * kLanes;
  int64_t tile, in_at, out_at, pixels, step = in.channels ? layer.stride : layer.stride * kLanes;
  if (is_flat(layer) && !in.channels) {
    const int64_t chunks = items / tiles, all = samples * out.pixels();
    const int64_t chunk = up_to((all + chunks - 1) / chunks, kernels_.tile_pixels);
    tile = item % tiles;
    const int64_t first = item / tiles * chunk;
    pixels = std::min(chunk, all - first);
    in_at = out_at = first * kLanes;
    if (pixels <= 0) return;
  } else {
    tile = item / (samples * out.height);
    const int64_t row = item % (samples * out.height), sample = row / out.height, y = row % out.height;
    in_at = in.channels ? sample * in.pixels() * in.channels + y * layer.stride * in.width
                        : (sample * in.pixels() + y * layer.stride * in.width) * kLanes;
    out_at = (sample * out.height + y) * out.width * kLanes;
    pixels = out.width;
  }
  Panel panel;
  panel.in = work.map(part, layer.in.map) + in_at;
  if (!in.channels) panel.in += layer.in.first * group * in.pixels() * kLanes;
  const std::vector<int64_t>& taps = work.layout.taps[index];
  panel.taps = taps.data();
  panel.count = taps.size();
  panel.step = static_cast<int>(step);
  panel.weights = layer.weights.data() + tile * kernels_.tile_channels * panel.count;
  panel.bias = layer.bias.data() + tile * kernels_.tile_channels;
  panel.out_plane = panel.other_plane = out_plane;
  const int64_t first = tile * tile_blocks;
  panel.out = work.map(part, layer.out.map) + (layer.out.first + first) * out_plane + out_at;
  panel.other = layer.other.map < 0
                    ? nullptr
                    : work.map(part, layer.other.map) + (layer.other.first + first) * out_plane + out_at;
  panel.blocks = static_cast<int>(std::min(tile_blocks, layer.blocks - first));
  panel.pixels = pixels;
  panel.activation = layer.activation;
  kernels_.convolve(panel);
}

// A part of the pixels, for a part of the channels.
void Plan::by_tiles(const Work& work, const PlanLayer& layer, int64_t index, size_t part, int64_t samples, int64_t item,
                    int64_t items, float* scratch) const {
  const int64_t plane = work.layout.parts[part].group * work.layout.sizes[layer.out.map].pixels() * kLanes;
  const int64_t all = samples * work.layout.sizes[layer.out.map].pixels(), most = rounded_pixels(layer);
  const int64_t chunks = divide_up(all, most), shares = items / chunks, blocks = divide_up(layer.blocks * kLanes, kBlock);
  const int64_t first = item / shares * most, pixels = std::min(most, all - first);
  const int64_t row = depth(layer), steps = row / kDepth;
  uint16_t* rows = reinterpret_cast<uint16_t*>(aligned(scratch));
  float* sums = aligned(scratch) + most * row / 2;
  tiles_->round_pixels(rows, row, work.map(part, layer.in.map) + layer.in.first * plane + first * kLanes, plane,
                       input_blocks(layer), pixels);
  Panel panel{};
  panel.out_plane = panel.other_plane = plane;
  panel.activation = layer.activation;
  tiles_->begin();
  for (int64_t b = item % shares * blocks / shares; b < (item % shares + 1) * blocks / shares; ++b) {
    const int64_t block = b * kBlock / kLanes;
    panel.bias = layer.bias.data() + b * kBlock;
    panel.out = work.map(part, layer.out.map) + (layer.out.first + block) * plane + first * kLanes;
    panel.other = layer.other.map < 0
                      ? nullptr
                      : work.map(part, layer.other.map) + (layer.other.first + block) * plane + first * kLanes;
    panel.blocks = static_cast<int>(std::min(kBlock / kLanes, layer.blocks - block));
    const TileMatrix right{rounded_[index].get() + b * kBlock * row, kDepth * 2, kTileSide * kDepth * 2,
                           work.layout.rights.data()};
    const auto multiply = panel.blocks * kLanes > kTileSide ? tiles_->multiply : tiles_->multiply_narrow;
    for (int64_t begin = 0; begin < pixels; begin += kSums) {
      const int64_t end = std::min(begin + kSums, pixels);
      for (int64_t p = begin; p < end; p += kBlock) {
        const TileMatrix left{rows + p * row, row * 2, kTileSide * row * 2, work.layout.lefts.data()};
        multiply(sums + (p - begin) * kBlock, kBlock, false, left, right, steps);
      }
      kernels_.finish(panel, sums, kBlock, begin, end - begin);
    }
  }
  tiles_->end();
}

void Plan::compute(const Work& work, size_t part, int64_t index, int64_t first, int64_t samples, int64_t item,
                   int64_t items, float* scratch) const {
  const PlanLayer& layer = layers_[index];
  if (is_rounded(layer)) return by_tiles(work, layer, index, part, samples, item, items, scratch);
  if (layer.kind == Kind::kDense) return dense(work, layer, index, part, samples, item, items);
  const int64_t group = work.layout.parts[part].group;
  const Size &in = work.layout.sizes[layer.in.map], &out = work.layout.sizes[layer.out.map];
  if (layer.kind == Kind::kPad) {
    const int64_t planes = in.channels ? in.channels : layer.blocks, lanes = in.channels ? 1 : kLanes;
    const int64_t plane = item % planes, sample = item / planes;
    const float* from;
    float* to = work.map(part, layer.out.map);
    if (in.channels) {
      from = layer.in.map == 0 ? work.images + (first + sample) * planes * in.pixels()
                               : work.map(part, layer.in.map) + sample * planes * in.pixels();
      from += plane * in.pixels();
      to += (sample * planes + plane) * out.pixels();
    } else {
      from = work.map(part, layer.in.map) + ((layer.in.first + plane) * group + sample) * in.pixels() * kLanes;
      to += ((layer.out.first + plane) * group + sample) * out.pixels() * kLanes;
    }
    const int64_t left = layer.pad_width * lanes, inside = in.width * lanes, row = out.width * lanes;
    for (int64_t y = -layer.pad_height; y < in.height + layer.pad_height; ++y, to += row) {
      if (y < 0 || y >= in.height) {
        std::fill_n(to, row, 0.0f);
      } else {
        std::fill_n(to, left, 0.0f);
        std::copy_n(from + y * inside, inside, to + left);
        std::fill_n(to + left + inside, left, 0.0f);
      }
    }
    return;
  }
  const int64_t rows = band(layer, out), bands = rows ? divide_up(out.height, rows) : 1;
  const int64_t first_row = item % bands * rows, end_row = std::min(first_row + rows, out.height);
  const int64_t plane = item / bands, block = plane / samples, sample = plane % samples;
  const auto at = [&](const Span& span, const Size& size) {
    return work.map(part, span.map) + ((span.first + block) * group + sample) * size.pixels() * kLanes;
  };
  const float* x = at(layer.in, in);
  float* y = at(layer.out, out);
  switch (layer.kind) {
    case Kind::kDepthwise: {
      const int64_t taps = layer.kernel_height * layer.kernel_width;
      DepthwiseRows part_of;
      part_of.in = x;
      part_of.height = in.height;
      part_of.width = in.width;
      part_of.weights = layer.weights.data() + block * taps * kTapLanes;
      part_of.bias = layer.bias.data() + block * kTapLanes;
      part_of.other = layer.other.map < 0 ? nullptr : at(layer.other, out);
      part_of.out = y;
      part_of.columns = out.width;
      part_of.first = first_row;
      part_of.end = end_row;
      part_of.kernel_height = static_cast<int>(layer.kernel_height);
      part_of.kernel_width = static_cast<int>(layer.kernel_width);
      part_of.stride = static_cast<int>(layer.stride);
      part_of.pad_height = static_cast<int>(layer.pad_height);
      part_of.pad_width = static_cast<int>(layer.pad_width);
      part_of.activation = layer.activation;
      part_of.scratch = scratch;
      return kernels_.depthwise(part_of);
    }
    case Kind::kMeans:
      return kernels_.means(y, x, in.pixels());
    case Kind::kGate:
      return kernels_.gate(y, x, at(layer.other, work.layout.sizes[layer.other.map]), in.pixels());
    case Kind::kShift:
      return kernels_.shift(y, x, at(layer.other, work.layout.sizes[layer.other.map]), in.pixels(), layer.activation);
    case Kind::kWeigh: {
      const Size& small = work.layout.sizes[layer.other.map];
      return kernels_.weigh(y, in.height, in.width, at(layer.other, small), small.height, small.width);
    }
    case Kind::kAdd:
      return kernels_.add(y, x, at(layer.other, in), in.pixels(), layer.activation);
    case Kind::kPool:
      return kernels_.pool(y, x, in.height, in.width, in.height / out.height == 1 ? 1 : layer.kernel_height,
                           in.width / out.width == 1 ? 1 : layer.kernel_width);
    case Kind::kMaxPool:
      return kernels_.max_pool(y, x, in.height, in.width, out.height, out.width,
                               {layer.kernel_height, layer.kernel_width, layer.stride, layer.pad_height, layer.pad_width});
    case Kind::kEnlarge:
      return kernels_.enlarge(y, x, in.height, in.width, layer.kernel_height, out.width, first_row, end_row);
    default:
      return;
  }
}

}  // namespace ghostnet
