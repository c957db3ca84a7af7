// The Huffman codes of a baseline JPEG file, undone in place of libjpeg's own decoder: a look at the next bits finds a
// code with its coefficient. Of blocks that nobody asked for it finds several codes at once, and keeps nothing.
//
// It does what libjpeg does without a warning, coefficient by coefficient. Whatever else a file may hold (a code that is
// none, too few bits, a marker within them, a coefficient behind the last one) is an error; the caller then starts again
// with libjpeg's decoder, which has the word on it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <jerror.h>
#include <jpeglib.h>

// As in libjpeg's jpegint.h, which not every system has.
struct jpeg_entropy_decoder {
  void (*start_pass)(j_decompress_ptr info);
  boolean (*decode_mcu)(j_decompress_ptr info, JBLOCKROW* blocks);
  boolean insufficient_data;
};

namespace huffman {

constexpr int kLook = 10;         // bits that are looked up at once; codes have up to 16
constexpr int kLongest = 16;
constexpr int kEnough = 32;       // bits for any code and the bits of its coefficient
constexpr int kLargestDc = 32767;  // libjpeg's coefficients have 16 bits

constexpr uint8_t kOrder[DCTSIZE2] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// The bits of the file from `next` on: `count` of them in `window`, the first one the highest. Bits behind the end are
// zeros; `missing` counts those.
struct Bits {
  const uint8_t* next;
  const uint8_t* end;
  uint64_t window;
  int count, missing;

  // At least kEnough bits.
  void fill() {
    if (count >= kEnough) return;
    if (end - next >= 8) {
      uint64_t bytes = 0;
      for (int i = 0; i < 8; ++i) bytes = bytes << 8 | next[i];
      const uint64_t inverse = ~bytes;
      if (((inverse - 0x0101010101010101u) & bytes & 0x8080808080808080u) == 0) {  // no byte is 0xff
        window |= bytes >> count;
        next += (63 - count) >> 3;
        count |= 56;
        return;
      }
    }
    fill_slowly();
  }

  void fill_slowly() {
    while (count <= 56) {
      uint64_t byte = 0;
      if (next < end && *next != 0xff) {
        byte = *next++;
      } else if (end - next >= 2 && next[1] == 0) {
        byte = 0xff;
        next += 2;
      } else {
        missing += 8;
      }
      window |= byte << (56 - count);
      count += 8;
    }
  }

  int look() const { return int(window >> (64 - kLook)); }

  void drop(int bits) {
    window <<= bits;
    count -= bits;
  }

  // A coefficient of 1 to 15 bits, taken.
  int coefficient(int bits) {
    const int value = int(window >> (64 - bits));
    drop(bits);
    return value < 1 << (bits - 1) ? value - (1 << bits) + 1 : value;
  }
};

// One Huffman table. All entries of lookups are 0 where the next bits do not say it all.
struct Table {
  uint32_t beyond[kLongest + 1];  // the first 16 bits that begin no code of up to this length
  int offset[kLongest + 1];       // from the value of a code to its place among the symbols
  const uint8_t* symbols;
  uint16_t code[1 << kLook];      // a symbol, and above 8 bits the length of its code
  uint64_t pair[1 << kLook];      // of AC: see pair_at
  uint32_t several[1 << kLook];   // of AC: bits, above 8 bits the places, above 16 bits whether the block ends

  void make(const JHUFF_TBL& table, bool ac) {
    symbols = table.huffval;
    std::memset(code, 0, sizeof(code));
    uint32_t value = 0;
    int place = 0;
    for (int length = 1; length <= kLongest; ++length, value <<= 1) {
      offset[length] = place - int(value);
      for (int i = 0; i < table.bits[length]; ++i, ++value, ++place) {
        if (length > kLook) continue;
        const int spread = 1 << (kLook - length);
        for (int k = 0; k < spread; ++k) code[(value << (kLook - length)) + k] = uint16_t(length << 8 | symbols[place]);
      }
      beyond[length] = value << (kLongest - length);
    }
    if (ac) make_lookups();
  }

  void make_lookups() {
    for (int bits = 0; bits < 1 << kLook; ++bits) {
      pair[bits] = pair_at(bits);
      several[bits] = codes_at(bits);
    }
  }

  // A coefficient and the one behind it: bits, above 8 bits the places up to the first, above 16 bits those up to the
  // second, above 24 bits whether the block ends, above 32 and 48 bits the two. Where there is one, it is there twice.
  uint64_t pair_at(int bits) const {
    int used = 0, count = 0, places[2] = {}, values[2] = {};
    bool ends = false;
    while (true) {
      const int entry = code[bits << used & ((1 << kLook) - 1)], length = entry >> 8, size = entry & 15;
      if (length == 0 || used + length + size > kLook) break;
      if (size == 0) {
        ends = count > 0 && (entry & 255) == 0;
        used += ends ? length : 0;
        break;
      }
      if (count == 2) break;
      int value = bits >> (kLook - used - length - size) & ((1 << size) - 1);
      if (value < 1 << (size - 1)) value -= (1 << size) - 1;
      places[count] = (entry >> 4 & 15) + 1;
      values[count++] = value;
      used += length + size;
    }
    if (count == 0) return 0;
    if (count == 1) values[1] = values[0];
    return uint64_t(uint16_t(values[1])) << 48 | uint64_t(uint16_t(values[0])) << 32 | uint64_t(ends) << 24 |
           uint64_t(places[1]) << 16 | uint64_t(places[0]) << 8 | uint64_t(used);
  }

  uint32_t codes_at(int bits) const {
    int used = 0, places = 0;
    while (used < kLook) {
      const int entry = code[bits << used & ((1 << kLook) - 1)], length = entry >> 8;
      if (length == 0 || used + length > kLook) break;
      const int run = entry >> 4 & 15, size = entry & 15;
      used += length + size;
      if (size == 0 && run != 15) return 1u << 16 | uint32_t(places) << 8 | uint32_t(used);
      places += run + 1;
    }
    return uint32_t(places) << 8 | uint32_t(used);
  }

  // The next symbol, its code taken; -1 where there is no such code.
  int symbol(Bits& bits) const {
    if (const int entry = code[bits.look()]) {
      bits.drop(entry >> 8);
      return entry & 255;
    }
    const uint32_t next = uint32_t(bits.window >> (64 - kLongest));
    for (int length = kLook + 1; length <= kLongest; ++length) {
      if (next >= beyond[length]) continue;
      bits.drop(length);
      return symbols[int(next >> (kLongest - length)) + offset[length]];
    }
    return -1;
  }
};

// The coefficients of a block but the first. Whether the codes were good.
inline bool read_ac(const Table& table, Bits& bits, JCOEF* block) {
  int k = 0;  // the place of the coefficient before
  while (k < DCTSIZE2 - 1) {
    bits.fill();
    const uint64_t entry = table.pair[bits.look()];
    const int first = k + int(entry >> 8 & 255), second = first + int(entry >> 16 & 255), end = int(entry >> 24 & 1);
    // What is behind the last place belongs to the next block.
    if (entry != 0 && second + end < DCTSIZE2) {
      bits.drop(entry & 255);
      block[kOrder[first]] = JCOEF(entry >> 32);
      block[kOrder[second]] = JCOEF(entry >> 48);
      if (end) return true;
      k = second;
      continue;
    }
    const int symbol = table.symbol(bits), run = symbol >> 4, size = symbol & 15;
    if (symbol < 0) return false;
    if (size == 0 && run != 15) return true;
    k += run + 1;
    if (k >= DCTSIZE2) return false;
    if (size != 0) block[kOrder[k]] = JCOEF(bits.coefficient(size));
  }
  return true;
}

// As read_ac, for nothing but the bits behind them.
inline bool skip_ac(const Table& table, Bits& bits) {
  int k = 1;
  while (k < DCTSIZE2) {
    bits.fill();
    const uint32_t entry = table.several[bits.look()];
    const int places = int(entry >> 8 & 255);
    // Codes behind the last place would be the next block's.
    if (entry != 0 && k + places < DCTSIZE2) {
      bits.drop(entry & 255);
      if (entry >> 16) return true;
      k += places;
      continue;
    }
    const int symbol = table.symbol(bits), run = symbol >> 4, size = symbol & 15;
    if (symbol < 0) return false;
    if (size == 0 && run != 15) return true;
    k += run + 1;
    if (k > DCTSIZE2) return false;
    bits.drop(size);
  }
  return true;
}

struct Decoder {
  jpeg_entropy_decoder base;  // first: libjpeg knows nothing but it
  Bits bits;
  JDIMENSION column, first_column, last_column;  // of the next unit of blocks; of those that are asked for
  int dc[MAX_COMPS_IN_SCAN];
  const Table* dc_tables[MAX_COMPS_IN_SCAN];
  const Table* ac_tables[MAX_COMPS_IN_SCAN];
};

// What libjpeg asks for: the blocks of one unit, zeroed; null where they are to be skipped.
inline boolean decode(j_decompress_ptr info, JBLOCKROW* blocks) {
  Decoder& decoder = *reinterpret_cast<Decoder*>(info->entropy);
  const bool wanted =
      blocks != nullptr && decoder.column >= decoder.first_column && decoder.column <= decoder.last_column;
  Bits bits = decoder.bits;
  bool good = true;
  for (int block = 0; block < info->blocks_in_MCU && good; ++block) {
    const int component = info->MCU_membership[block];
    bits.fill();
    const int size = decoder.dc_tables[component]->symbol(bits);
    int& dc = decoder.dc[component];
    if (size > 0 && size < 16) dc += bits.coefficient(size);
    good = size >= 0 && size < 16 && dc <= kLargestDc && dc >= -kLargestDc;
    if (!good) break;
    const Table& table = *decoder.ac_tables[component];
    if (wanted) {
      JCOEF* coefficients = blocks[block][0];
      coefficients[0] = JCOEF(dc);
      good = read_ac(table, bits, coefficients);
    } else {
      good = skip_ac(table, bits);
    }
  }
  if (!good || bits.count < bits.missing) ERREXIT(info, JERR_BAD_LENGTH);
  decoder.bits = bits;
  if (++decoder.column == info->MCUs_per_row) decoder.column = 0;
  return TRUE;
}

// Whether the file is of the usual kind: one scan of all colours, whole blocks, 8 bits, without markers between.
inline bool knows(const jpeg_decompress_struct& info) {
  return !info.progressive_mode && !info.arith_code && info.data_precision == 8 && info.restart_interval == 0 &&
         info.comps_in_scan == info.num_components && info.Ss == 0 && info.Se == DCTSIZE2 - 1 && info.Ah == 0 &&
         info.Al == 0;
}

// A table in libjpeg's memory, which it frees with the rest; its own decoder has refused those that are none.
inline const Table* table_of(jpeg_decompress_struct& info, const JHUFF_TBL& source, bool ac) {
  void* memory = info.mem->alloc_large(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, sizeof(Table));
  Table* table = static_cast<Table*>(memory);
  table->make(source, ac);
  return table;
}

// Takes the place of libjpeg's decoder, before it has read anything. Blocks are asked for from column `first` of pixels
// to before `end`; the others stay zero.
inline void take_over(jpeg_decompress_struct& info, JDIMENSION first, JDIMENSION end) {
  void* memory = info.mem->alloc_small(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, sizeof(Decoder));
  Decoder& decoder = *static_cast<Decoder*>(memory);
  decoder.base = {info.entropy->start_pass, decode, FALSE};
  const uint8_t* start = info.src->next_input_byte;
  decoder.bits = {start, start + info.src->bytes_in_buffer, 0, 0, 0};
  const JDIMENSION width = DCTSIZE * (info.comps_in_scan == 1 ? 1 : info.max_h_samp_factor);
  decoder.column = 0;
  decoder.first_column = first / width;
  decoder.last_column = (end - 1) / width;
  const Table* dc[NUM_HUFF_TBLS] = {};
  const Table* ac[NUM_HUFF_TBLS] = {};
  for (int component = 0; component < info.comps_in_scan; ++component) {
    const int dc_number = info.cur_comp_info[component]->dc_tbl_no, ac_number = info.cur_comp_info[component]->ac_tbl_no;
    if (dc[dc_number] == nullptr) dc[dc_number] = table_of(info, *info.dc_huff_tbl_ptrs[dc_number], false);
    if (ac[ac_number] == nullptr) ac[ac_number] = table_of(info, *info.ac_huff_tbl_ptrs[ac_number], true);
    decoder.dc_tables[component] = dc[dc_number];
    decoder.ac_tables[component] = ac[ac_number];
    decoder.dc[component] = 0;
  }
  info.entropy = &decoder.base;
}

}  // namespace huffman
