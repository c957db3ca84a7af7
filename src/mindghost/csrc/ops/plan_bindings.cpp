// A plan as Python calls it (ops/plan): numpy's memory, and no operator of MindSpore.
#include <exception>
#include <new>

#include "plan.h"

using ghostnet::Plan;

namespace {

#define NAME(name) #name " "
constexpr const char* kKindNames = GHOSTNET_PLAN_KINDS(NAME);
#undef NAME

}  // namespace

extern "C" {

const char* ghostnet_plan_kinds() { return kKindNames; }

// See plan.h; null where memory runs out.
void* ghostnet_plan_make(const int64_t* program, const float* weights, int bfloat16) {
  try {
    const ghostnet::Tiles* tiles = bfloat16 ? &ghostnet::best_tiles() : nullptr;
    return new Plan(*ghostnet::usable_plan_kernels().back(), tiles, program, weights);
  } catch (const std::exception&) {
    return nullptr;
  }
}

void ghostnet_plan_delete(void* plan) { delete static_cast<Plan*>(plan); }

// Height and width of the last map for images of a size.
void ghostnet_plan_size(const void* plan, int64_t channels, int64_t height, int64_t width, int64_t* size) {
  const Plan::Size out = static_cast<const Plan*>(plan)->size(channels, height, width);
  size[0] = out.height;
  size[1] = out.width;
}

// 0, or 1 where memory runs out.
int ghostnet_plan_run(void* plan, const float* images, int64_t count, int64_t channels, int64_t height, int64_t width,
                      float* maps) {
  try {
    static_cast<Plan*>(plan)->run(images, count, channels, height, width, maps);
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
}
