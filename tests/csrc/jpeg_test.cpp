// Boxes of the JPEG files in the arguments, whole and damaged, for a sanitizer to watch; compared with the whole image.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" {
int ghostnet_jpeg_size(const uint8_t*, size_t, int*);
int ghostnet_jpeg_box(const uint8_t*, size_t, int, int, int, int, uint8_t*);
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

void decode_damaged(Bytes content, std::mt19937& random) {
  for (int i = 0; i < 3; ++i) content[2 + random() % (content.size() - 2)] = random();
  content.resize(content.size() - random() % 8);
  int size[2];
  if (ghostnet_jpeg_size(content.data(), content.size(), size) || int64_t(size[0]) * size[1] > kLargest) return;
  const int top = size[0] / 3, left = size[1] / 3;
  Bytes box(size_t(3) * (size[0] - top) * (size[1] - left));
  ghostnet_jpeg_box(content.data(), content.size(), top, left, size[0] - top, size[1] - left, box.data());
}

}  // namespace

int main(int count, char** paths) {
  int failures = 0;
  std::mt19937 random(1);
  for (int i = 1; i < count; ++i) {
    std::ifstream file(paths[i], std::ios::binary);
    const Bytes content{std::istreambuf_iterator<char>(file), {}};
    int size[2];
    failures += ghostnet_jpeg_size(content.data(), content.size(), size) != 0;
    Bytes whole(size_t(3) * size[0] * size[1]);
    failures += ghostnet_jpeg_box(content.data(), content.size(), 0, 0, size[0], size[1], whole.data()) != 0;
    failures += compare_boxes(content, size, whole, 50, random);
    for (int k = 0; k < 300; ++k) decode_damaged(content, random);
  }
  std::printf("%d files, %d failures\n", count - 1, failures);
  return failures != 0;
}
