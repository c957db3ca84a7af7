// JPEG -> RGB pixels by libjpeg-turbo, of a box of the image: what lies above and beside it is not transformed, what lies
// below it is not even read. The pixels are those of the whole image, decoded and cut, bit for bit.
//
// Every function returns 0, or what it would not do: a damaged file, one that libjpeg has a warning about, a progressive one
// that lacks scans, and pixels that are neither grayscale nor of three colours are left to another decoder.

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

namespace {

enum Refusal { kDone, kUnreadable, kOtherColours, kOutside, kIncomplete };

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

int read_box(jpeg_decompress_struct& info, int top, int left, int height, int width, uint8_t* pixels) {
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  if (!is_complete(info)) return kIncomplete;
  // libjpeg takes the edge of what it transforms for the image's edge, where upsampled colours have no neighbour:
  // a block more on both sides, and pixels inside of it are none of the edge.
  const int image_width = info.output_width, block = info.max_h_samp_factor * DCTSIZE;
  const int right = left + width + block;
  JDIMENSION first = left > block ? left - block : 0;
  JDIMENSION columns = (right < image_width ? right : image_width) - first;
  if (columns < info.output_width) jpeg_crop_scanline(&info, &first, &columns);
  // libjpeg frees it with the rest.
  JSAMPARRAY row = info.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, columns * 3, 1);
  if (top > 0) jpeg_skip_scanlines(&info, top);
  for (int y = 0; y < height; ++y) {
    if (jpeg_read_scanlines(&info, row, 1) != 1) return kUnreadable;
    std::memcpy(pixels + size_t(3) * width * y, row[0] + size_t(3) * (left - first), size_t(3) * width);
  }
  return kDone;
}

}  // namespace

extern "C" {

// Height and width, from the header.
int ghostnet_jpeg_size(const uint8_t* content, size_t length, int* size) {
  return with_header(content, length, [&](jpeg_decompress_struct& info) -> int {
    size[0] = info.image_height;
    size[1] = info.image_width;
    return kDone;
  });
}

// A box of the image -> `pixels`, (height, width, 3).
int ghostnet_jpeg_box(const uint8_t* content, size_t length, int top, int left, int height, int width, uint8_t* pixels) {
  return with_header(content, length, [&](jpeg_decompress_struct& info) -> int {
    const int64_t below = int64_t(top) + height, beyond = int64_t(left) + width;
    const bool inside = top >= 0 && left >= 0 && height > 0 && width > 0 && below <= int64_t(info.image_height) &&
                        beyond <= int64_t(info.image_width);
    return inside ? read_box(info, top, left, height, width, pixels) : int(kOutside);
  });
}
}
