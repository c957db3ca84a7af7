// Boxes of the JPEG files in the arguments, whole and damaged, for a sanitizer to watch; compared with the whole image.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" {
int ghostnet_jpeg_header(const uint8_t*, size_t, int*);
int ghostnet_jpeg_box(const uint8_t*, size_t, int, int, int, int, uint8_t*);
int ghostnet_jpeg_resized(const uint8_t*, size_t, const int*, const float*, int, void*);
int ghostnet_resized(const uint8_t*, int, int, const int*, const float*, int, void*);
}

namespace {

constexpr int64_t kLargest = 1 << 20;  // pixels: what damage makes of a header may be huge

using Bytes = std::vector<uint8_t>;

// Returns the number of boxes that differ from the same part of `whole`.
int compare_boxes(const Bytes& content, const int* size, const Bytes& whole, int count, std::mt19937& random) {
  int failures = 0;
  for (int i = 0; i < count; ++i) {
    const int top = random() % size[0], left = random() % size[1];
    const int height = 1 + random() % (size[0] - top), width = 1 + random() % (size[1] - left);
    Bytes box(size_t(3) * height * width);  // just as large, so that a byte too many is seen
    if (ghostnet_jpeg_box(content.data(), content.size(), top, left, height, width, box.data())) {
      ++failures;
      continue;
    }
    for (int y = 0; y < height; ++y) {
      const uint8_t* expected = whole.data() + 3 * (size_t(top + y) * size[1] + left);
      failures += std::memcmp(box.data() + size_t(3) * y * width, expected, size_t(3) * width) != 0;
    }
  }
  return failures;
}

// Windows of resized boxes, of the file and of its pixels. Returns the number that differ.
int compare_resized(const Bytes& content, const int* size, const Bytes& whole, int count, std::mt19937& random) {
  std::vector<float> table(3 * 256);
  for (size_t i = 0; i < table.size(); ++i) table[i] = float(i);
  int failures = 0;
  for (int i = 0; i < count; ++i) {
    int plan[12] = {int(random() % size[0]), int(random() % size[1])};
    for (int axis = 0; axis < 2; ++axis) {
      plan[2 + axis] = 1 + random() % (size[axis] - plan[axis]);
      plan[4 + axis] = 1 + random() % 90;
      plan[6 + axis] = random() % plan[4 + axis];
      plan[8 + axis] = 1 + random() % (plan[4 + axis] - plan[6 + axis]);
      plan[10 + axis] = random() % 2;
    }
    const size_t pixels = size_t(plan[8]) * plan[9];
    Bytes bytes(3 * pixels), same(3 * pixels);
    std::vector<float> planes(3 * pixels);
    const int refused = ghostnet_jpeg_resized(content.data(), content.size(), plan, nullptr, 0, bytes.data());
    if (refused != ghostnet_resized(whole.data(), size[0], size[1], plan, nullptr, 0, same.data())) ++failures;
    if (refused != ghostnet_jpeg_resized(content.data(), content.size(), plan, table.data(), 3, planes.data())) ++failures;
    if (refused) continue;
    failures += bytes != same;
    for (size_t k = 0; k < 3 * pixels; ++k) failures += planes[k] != float(k / pixels * 256 + bytes[k % pixels * 3 + k / pixels]);
  }
  return failures;
}

void decode_damaged(Bytes content, std::mt19937& random) {
  for (int i = 0; i < 3; ++i) content[2 + random() % (content.size() - 2)] = random();
  content.resize(content.size() - random() % 8);
  int size[3];
  if (ghostnet_jpeg_header(content.data(), content.size(), size) || int64_t(size[0]) * size[1] > kLargest) return;
  const int top = size[0] / 3, left = size[1] / 3;
  Bytes box(size_t(3) * (size[0] - top) * (size[1] - left));
  ghostnet_jpeg_box(content.data(), content.size(), top, left, size[0] - top, size[1] - left, box.data());
  const int plan[12] = {top, left, size[0] - top, size[1] - left, 20, 30, 2, 3, 16, 24, 1, 0};
  Bytes window(3 * 16 * 24);
  ghostnet_jpeg_resized(content.data(), content.size(), plan, nullptr, 0, window.data());
}

}  // namespace

int main(int count, char** paths) {
  int failures = 0;
  std::mt19937 random(1);
  for (int i = 1; i < count; ++i) {
    std::ifstream file(paths[i], std::ios::binary);
    const Bytes content{std::istreambuf_iterator<char>(file), {}};
    int size[3];
    failures += ghostnet_jpeg_header(content.data(), content.size(), size) != 0;
    Bytes whole(size_t(3) * size[0] * size[1]);
    failures += ghostnet_jpeg_box(content.data(), content.size(), 0, 0, size[0], size[1], whole.data()) != 0;
    failures += compare_boxes(content, size, whole, 50, random);
    failures += compare_resized(content, size, whole, 100, random);
    for (int k = 0; k < 300; ++k) decode_damaged(content, random);
  }
  std::printf("%d files, %d failures\n", count - 1, failures);
  return failures != 0;
}
