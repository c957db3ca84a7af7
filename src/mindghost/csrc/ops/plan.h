// A whole network for inference: layers that follow each other in memory that is planned once for a size of images.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffers.h"
#include "plan_kernels.h"
#include "tiles.h"

namespace ghostnet {

// What a layer does. Python (ops/plan/program.py) knows the same numbers; ghostnet_plan_kinds says their names.
#define GHOSTNET_PLAN_KINDS(KIND)                                                                               \
  KIND(Pad) KIND(Dense) KIND(Depthwise) KIND(Means) KIND(Gate) KIND(Weigh) KIND(Add) KIND(Pool) KIND(Shift) KIND(MaxPool)   \
  KIND(Enlarge)
#define GHOSTNET_PLACE(name) k##name,
enum class Kind : int64_t { GHOSTNET_PLAN_KINDS(GHOSTNET_PLACE) };
#undef GHOSTNET_PLACE

// Blocks [first, first + blocks) of a map. Map 0 are the images, one channel after the other; a map that Pad made of them
// is like that, too. Others have kLanes channels side by side.
struct Span {
  int64_t map, first;
};

struct PlanLayer {
  Kind kind;
  Span in, out;
  int64_t blocks;  // of `out` that it makes
  int64_t kernel_height, kernel_width, stride, pad_height, pad_width;
  Activation activation;
  Span other;  // what is added; the gates, the shifts; Enlarge: the map whose size is not exceeded; map -1: none
  std::vector<float> weights, bias;
  std::vector<int64_t> inputs;  // Dense: the lanes of `in` that are channels
};

// Made of a program: the numbers of maps, of layers and of outputs, blocks of each map, and for each layer its fields in
// the order above, then how many weights, biases and inputs it has, and these inputs. `weights` are those of all layers, as
// (output lane, input, row, column), and each time followed by the biases. They were checked by who wrote them.
class Plan {
 public:
  // `tiles`: 1x1 convolutions are products in bfloat16, by these; null: all is in float32.
  Plan(const PlanKernels& kernels, const Tiles* tiles, const int64_t* program, const float* weights);

  struct Size {
    int64_t height = 0, width = 0, channels = 0;  // channels: of planes; 0 where kLanes of them lie side by side
    int64_t pixels() const { return height * width; }
  };
  // Of the last map, for images of a size.
  Size size(int64_t channels, int64_t height, int64_t width) const { return sizes(channels, height, width).back(); }

  // Images (count, channels, height, width) -> the last map (count, outputs, its height, its width); of a whole network,
  // logits. The same bits for any number of threads.
  void run(const float* images, int64_t count, int64_t channels, int64_t height, int64_t width, float* maps);

 private:
  // Layers [first, end) run on `group` samples at once; where they begin, one map of the part before them goes on.
  struct Part {
    int64_t first, end, group, boundary = 0;
  };
  // Sizes and places of maps for one size of images.
  struct Layout {
    int64_t channels, height, width;
    std::vector<Size> sizes;
    std::vector<Part> parts;
    std::vector<std::vector<int64_t>> places;  // part -> map -> where it begins; -1: not there
    int64_t memory, scratch;
    std::vector<std::vector<int64_t>> taps;  // of dense layers, but those of one pixel
    std::vector<int64_t> lefts, rights;      // steps of a product by tiles
  };
  class Crew;
  struct Work;

  void pack(PlanLayer* layer, const float* weights, const float* bias) const;
  bool is_rounded(const PlanLayer& layer) const;
  Zeros<uint16_t> rounded(const PlanLayer& layer, const float* weights) const;
  std::shared_ptr<const Layout> layout(int64_t channels, int64_t height, int64_t width, int64_t together);
  std::vector<Size> sizes(int64_t channels, int64_t height, int64_t width) const;
  Size size_of(const PlanLayer& layer, const std::vector<Size>& sizes) const;
  void split(Layout* layout, int64_t together) const;
  void place(Layout* layout) const;
  int64_t floats(const Layout& layout, int64_t map, int64_t samples) const;
  int64_t band(const PlanLayer& layer, const Size& out) const;
  void run_part(const Work& work, size_t part, int64_t first, int64_t count, Crew* crew) const;
  int64_t items(const Work& work, int64_t layer, int64_t samples, int64_t threads) const;
  void compute(const Work& work, size_t part, int64_t layer, int64_t first, int64_t samples, int64_t item, int64_t items,
               float* scratch) const;
  void dense(const Work& work, const PlanLayer& layer, int64_t index, size_t part, int64_t samples, int64_t item,
             int64_t items) const;
  void by_tiles(const Work& work, const PlanLayer& layer, int64_t index, size_t part, int64_t samples, int64_t item,
                int64_t items, float* scratch) const;

  const PlanKernels& kernels_;
  const Tiles* const tiles_;
  int64_t maps_, outputs_;
  std::vector<int64_t> blocks_;
  std::vector<PlanLayer> layers_;
  std::vector<Zeros<uint16_t>> rounded_;  // weights of each layer that tiles multiply
  std::mutex mutex_;
  std::shared_ptr<const Layout> last_;
};

// The loops that this machine can run, the best ones last.
std::vector<const PlanKernels*> usable_plan_kernels();

}  // namespace ghostnet
