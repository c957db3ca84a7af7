// JPEG -> RGB pixels by libjpeg-turbo, of a box of the image: what lies above and beside it is not transformed, what lies
// below it is not even read. The pixels are those of the whole image, decoded and cut, bit for bit. On the way they may be
// resized and normalised, row by row.
//
// Every function returns 0, or what it would not do: a damaged file, one that libjpeg has a warning about, a progressive one
// that lacks scans, and pixels that are neither grayscale nor of three colours are left to another decoder.

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <jpeglib.h>

#include "huffman.h"
#include "resample.h"

namespace {

enum Refusal { kDone, kUnreadable, kOtherColours, kOutside, kIncomplete, kOtherRule };

constexpr int kUneven = 8;  // bytes: no multiple of 16

struct Errors {
  jpeg_error_mgr base;
  std::jmp_buf jump;
};

[[noreturn]] void give_up(j_common_ptr info) { std::longjmp(reinterpret_cast<Errors*>(info->err)->jump, 1); }

// Levels below zero are warnings, the others are for debugging.
void on_message(j_common_ptr info, int level) {
  if (level < 0) give_up(info);
}

// Calls `use(info)` after the file's header has been read. `use` must own nothing: errors jump over its end.
template <class Use>
int with_header(const uint8_t* content, size_t length, Use use) {
  jpeg_decompress_struct info;
  Errors errors;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = give_up;
  errors.base.emit_message = on_message;
  if (setjmp(errors.jump)) {
    jpeg_destroy_decompress(&info);
    return kUnreadable;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, const_cast<uint8_t*>(content), length);
  jpeg_read_header(&info, TRUE);
  const bool known = info.jpeg_color_space == JCS_GRAYSCALE || info.jpeg_color_space == JCS_YCbCr ||
                       info.jpeg_color_space == JCS_RGB;
  const int refusal = known ? use(info) : kOtherColours;
  jpeg_destroy_decompress(&info);
  return refusal;
}

// Whether a progressive file has all bits of all its coefficients. Where scans are missing libjpeg has no warning: it
// smooths what it has, one version of it in another way than the next.
bool is_complete(const jpeg_decompress_struct& info) {
  if (!info.progressive_mode) return true;
  if (info.coef_bits == nullptr) return false;
  for (int component = 0; component < info.num_components; ++component) {
    for (int coefficient = 0; coefficient < DCTSIZE2; ++coefficient) {
      if (info.coef_bits[component][coefficient] != 0) return false;
    }
  }
  return true;
}

struct Box {
  int top, left, height, width;
};

// Whether a box is a part of an image.
bool is_inside(const Box& box, int64_t height, int64_t width) {
  return box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 && int64_t(box.top) + box.height <= height &&
         int64_t(box.left) + box.width <= width;
}

// Calls `use(y, row)` for each row of a box, (width, 3) pixels and resample::kPadding bytes that may be read. `use` must
// own nothing. With `ours` codes are undone by huffman.h, where it knows the kind of file.
template <class Use>
int read_rows(jpeg_decompress_struct& info, const Box& box, bool ours, Use use) {
  if (!is_inside(box, info.image_height, info.image_width)) return kOutside;
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  if (!is_complete(info)) return kIncomplete;
  // libjpeg takes the edge of what it transforms for the image's edge, where upsampled colours have no neighbour:
  // a block more on both sides, and pixels inside of it are none of the edge.
  const int image_width = info.output_width, block = info.max_h_samp_factor * DCTSIZE;
  const int right = box.left + box.width + block;
  JDIMENSION first = box.left > block ? box.left - block : 0;
  JDIMENSION columns = (right < image_width ? right : image_width) - first;
  if (columns < info.output_width) jpeg_crop_scanline(&info, &first, &columns);
  if (ours && huffman::knows(info)) huffman::take_over(info, first, first + columns);
  // libjpeg frees it with the rest. To a row at a multiple of 16 bytes it writes past the caches, whence each read waits.
  const JDIMENSION bytes = kUneven + columns * 3 + resample::kPadding;
  JSAMPARRAY memory = info.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, bytes, 1);
  std::memset(memory[0], 0, bytes);
  JSAMPROW row = memory[0] + kUneven;
  if (box.top > 0) jpeg_skip_scanlines(&info, box.top);
  for (int y = 0; y < box.height; ++y) {
    if (jpeg_read_scanlines(&info, &row, 1) != 1) return kUnreadable;
    use(y, row + size_t(3) * (box.left - first));
  }
  return kDone;
}

// `read(ours)`, and once more with libjpeg's own decoder where ours was at its end.
template <class Read>
int ours_or_libjpegs(Read read) {
  const int refusal = read(true);
  return refusal == kUnreadable ? read(false) : refusal;
}

resample::Target target_of(const float* table, int channels, void* out) {
  if (table == nullptr) return {static_cast<uint8_t*>(out), nullptr, 0, nullptr};
  return {nullptr, table, channels, static_cast<float*>(out)};
}

}  // namespace

extern "C" {

// Height and width, from the header, and whether the file has more scans than one.
int ghostnet_jpeg_header(const uint8_t* content, size_t length, int* found) {
  return with_header(content, length, [&](jpeg_decompress_struct& info) -> int {
    found[0] = info.image_height;
    found[1] = info.image_width;
    found[2] = jpeg_has_multiple_scans(&info);
    return kDone;
  });
}

// A box of the image -> `pixels`, (height, width, 3).
int ghostnet_jpeg_box(const uint8_t* content, size_t length, int top, int left, int height, int width, uint8_t* pixels) {
  return ours_or_libjpegs([&](bool ours) {
    return with_header(content, length, [&](jpeg_decompress_struct& info) {
      return read_rows(info, {top, left, height, width}, ours, [&](int y, const uint8_t* row) {
        std::memcpy(pixels + size_t(3) * width * y, row, size_t(3) * width);
      });
    });
  });
}

// A box of the image, resized, cut and mirrored -> `out`: bytes (height, width, 3), or with a table, (channels, 256),
// that pixels are looked up in, floats (channels, height, width).
int ghostnet_jpeg_resized(const uint8_t* content, size_t length, const resample::Plan* plan, const float* table,
                          int channels, void* out) {
  if (!resample::is_possible(*plan)) return kOutside;
  if (resample::is_halving(*plan)) return kOtherRule;
  return ours_or_libjpegs([&](bool ours) {
    resample::Resizer resizer(*plan, target_of(table, channels, out));
    const int top = resizer.first_row(), left = resizer.first_column();
    const Box part = {plan->top + top, plan->left + left, resizer.last_row() - top + 1,
                      resizer.last_column() - left + 1};
    return with_header(content, length, [&](jpeg_decompress_struct& info) -> int {
      if (!is_inside({plan->top, plan->left, plan->height, plan->width}, info.image_height, info.image_width)) {
        return kOutside;
      }
      return read_rows(info, part, ours, [&](int y, const uint8_t* row) { resizer.take(top + y, row, left); });
    });
  });
}

// As ghostnet_jpeg_resized, of an image's pixels, (height, width, 3).
int ghostnet_resized(const uint8_t* pixels, int height, int width, const resample::Plan* plan, const float* table,
                     int channels, void* out) {
  const bool inside = is_inside({plan->top, plan->left, plan->height, plan->width}, height, width);
  if (!inside || !resample::is_possible(*plan)) return kOutside;
  if (resample::is_halving(*plan)) return kOtherRule;
  resample::Resizer resizer(*plan, target_of(table, channels, out));
  const int left = resizer.first_column();
  const size_t bytes = size_t(3) * (resizer.last_column() - left + 1);
  std::vector<uint8_t> line(bytes + resample::kPadding);
  for (int row = resizer.first_row(); row <= resizer.last_row(); ++row) {
    std::memcpy(line.data(), pixels + 3 * (size_t(width) * (plan->top + row) + plan->left + left), bytes);
    resizer.take(row, line.data(), left);
  }
  return kDone;
}

// Pixels (count, 3) -> floats (channels, count), looked up in a table (channels, 256).
void ghostnet_looked_up(const uint8_t* pixels, int count, const float* table, int channels, float* out) {
  resample::look_up(pixels, count, table, channels, out, count);
}
}
