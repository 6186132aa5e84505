// A weight [N, K] laid out for products with few rows or many, on every device: `packed_linear` reads it.
//
// layout: groups of 16 rows; a group is ceil(K / 32) blocks of 32 columns, one after the other. Within a block, for
// column
//   c and row (lane) l of the group, bytes from the block's start:
//     f32        2048: number at 4 (16 c + l)
//     bf16, f16  1024: number at 64 (c / 2) + 4 l + 2 (c % 2): pairs of columns side by side
//     q8          544: 16 scales (f16) at 2 l, then the integer w (i8) at 32 + 64 (c / 4) + 4 l + c % 4
//     q4          288: 16 scales (f16) at 2 l, then w + 8 in 4 bits at 32 + 64 (c / 4 % 4) + 4 l + c % 4: in the lower
//     half
//                      of the byte for c < 16, in the upper half for the others
//   The number is scale w in q8 and q4. Rows and columns past the end are 0.
// rows: row n is lane n % 16 of group n / 16. gated: N is even, rows below N/2 are gates and the others the values they
//   go with; pair i = (row i, row N/2 + i) is lanes i % 8 and 8 + i % 8 of group i / 8
// source: one layout for vectors of 8 and of 16 floats, for bytes multiplied by fours, and for the tensor cores'
// fragments:
//   a 16-byte load is four rows' share of one. q4 rounds as Q4_0 of llama.cpp does, q8 as its Q8_0
//
// pack_weight: writes rows [first, first + n) of the weight from source [n, K]; the others stay as they are.
// dtypes: source f32, bf16 or f16 (f64 on ref, rounded to f32 first); bytes u8 [groups, bytes of a group]
// rounding, of a block of 32 columns of a row, in f32: scale = m / 127 in q8 with m the largest |w|, and m / -8 in q4
// with m
//   the w (the first of them) of the largest |w|; rounded to f16; integer = w / scale to nearest, ties to even, kept in
//   [-127, 127] or [-8, 7]; 0 where the scale is. So |number - w| <= scale / 2, but for w near -m in q4 (up to one
//   scale)
// limits: a NaN or an infinity makes its block NaN in q8 and q4; |w| < 65504 * 127 in q8, 65504 * 8 in q4
// exact: the same bytes on every device, for any number of threads
//
// packed_rows: y[r] = row ids[r] of the weight as f32 numbers (exactly); y [R, K] f32, ids [R] i32
// limits: 0 <= id < N; another id fails the stream, naming the id, its position and N. Not of a gated weight
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"
#include "../common/ids.h"

namespace ds {

enum class PackedFormat : int64_t { f32 = 0, bf16 = 1, f16 = 2, q8 = 3, q4 = 4 };

constexpr int64_t kGroupRows = 16, kBlockColumns = 32;
constexpr int64_t kScaleBytes = kGroupRows * 2;  // in front of a block's integers

constexpr bool is_quantised(PackedFormat format) { return format == PackedFormat::q8 || format == PackedFormat::q4; }

constexpr int64_t packed_block_bytes(PackedFormat format) {
  constexpr int64_t kBytes[] = {2048, 1024, 1024, 544, 288};
  return kBytes[int(format)];
}

// Calls fn.operator()<format>().
template <class F>
void dispatch_format(PackedFormat format, F&& fn) {
  switch (format) {
    case PackedFormat::f32:
      return fn.template operator()<PackedFormat::f32>();
    case PackedFormat::bf16:
      return fn.template operator()<PackedFormat::bf16>();
    case PackedFormat::f16:
      return fn.template operator()<PackedFormat::f16>();
    case PackedFormat::q8:
      return fn.template operator()<PackedFormat::q8>();
    case PackedFormat::q4:
      return fn.template operator()<PackedFormat::q4>();
  }
}

// Where the element of column c (of the block) and lane l is, from the block's start.
constexpr int64_t packed_offset(PackedFormat format, int64_t c, int64_t l) {
  switch (format) {
    case PackedFormat::f32:
      return 64 * c + 4 * l;
    case PackedFormat::bf16:
    case PackedFormat::f16:
      return c / 2 * 64 + 4 * l + c % 2 * 2;
    case PackedFormat::q8:
      return kScaleBytes + c / 4 * 64 + 4 * l + c % 4;
    case PackedFormat::q4:
      return kScaleBytes + c / 4 % 4 * 64 + 4 * l + c % 4;
  }
  return 0;
}

// A weight as ops take it: fields that several of them share.
struct PackedWeight {
  Tensor bytes;
  int64_t format_code, rows, columns;
  bool gated;

  void visit(auto& v) { v(bytes, format_code, rows, columns, gated); }

  PackedFormat format() const { return PackedFormat(format_code); }
  // Columns of a product with it.
  int64_t outputs() const { return gated ? rows / 2 : rows; }
  // Outputs of one group.
  int64_t group_outputs() const { return gated ? kGroupRows / 2 : kGroupRows; }
  int64_t groups() const { return (outputs() + group_outputs() - 1) / group_outputs(); }
  int64_t blocks() const { return (columns + kBlockColumns - 1) / kBlockColumns; }
  int64_t group_bytes() const { return blocks() * packed_block_bytes(format()); }
  int64_t group_of(int64_t row) const { return gated ? row % (rows / 2) / 8 : row / kGroupRows; }
  int64_t lane_of(int64_t row) const { return gated ? row / (rows / 2) * 8 + row % (rows / 2) % 8 : row % kGroupRows; }
  uint8_t* group(int64_t g) const { return bytes.as<uint8_t>() + g * group_bytes(); }

  bool fits() const {
    return format_code >= 0 && format_code <= 4 && rows >= 0 && columns >= 1 && (!gated || rows % 2 == 0) &&
           bytes.dtype == DType::u8 && bytes.numel() == groups() * group_bytes() &&
           reinterpret_cast<uintptr_t>(bytes.data) % 16 == 0;
  }
};

// The number in column c of lane l of a block.
inline float packed_number(PackedFormat format, const uint8_t* block, int64_t c, int64_t l) {
  const uint8_t* p = block + packed_offset(format, c, l);
  auto read = [](const void* from, auto value) {
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  if (format == PackedFormat::f32) return read(p, 0.0f);
  if (format == PackedFormat::bf16) return to_float(read(p, bf16{}));
  if (format == PackedFormat::f16) return to_float(read(p, f16{}));
  float scale = to_float(read(block + 2 * l, f16{}));
  return scale * float(format == PackedFormat::q8 ? int(read(p, int8_t{})) : (*p >> (c < 16 ? 0 : 4) & 15) - 8);
}

struct PackWeight {
  static constexpr const char* name = "pack_weight";
  PackedWeight weight;
  Tensor source;
  int64_t first;

  void visit(auto& v) { v(weight, source, first); }
  void check() const {
    DS_REQUIRE(weight.fits() && source.rank == 2 && source.dim(1) == weight.columns && is_float(source.dtype));
    DS_REQUIRE(first >= 0 && first + source.dim(0) <= weight.rows);
    DS_REQUIRE_APART(weight.bytes, source);
  }
  void ref() const;
  void cpu() const;
};

struct PackedRows {
  static constexpr const char* name = "packed_rows";
  Tensor y, ids;
  PackedWeight weight;

  void visit(auto& v) { v(y, ids, weight); }
  void check() const {
    DS_REQUIRE(weight.fits() && !weight.gated && ids.dtype == DType::i32);
    DS_REQUIRE(y.dtype == DType::f32 && y.numel() == ids.numel() * weight.columns);
    DS_REQUIRE_APART(y, weight.bytes);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(PackWeight, pack_weight)
DS_CPU_KERNEL(PackedRows, packed_rows)

}  // namespace ds
