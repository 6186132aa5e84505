// Keys and values of many sequences in pages, and the rows of a batch that see them: what the paged ops share.
//   keys [P, G, D, page]: inside a page the tokens are side by side, so that the scores of neighbours are one vector
//   values [P, G, page, D]; G key-value heads of D elements; page: 8, 16 or 32 tokens
//   dtypes: f32, bf16, f16 (f64 on ref); or u8 with scales [P, G, page]: an element is its byte, read as a signed
//   number in two's complement, times the scale of its token and head
// A batch has R rows of S sequences: sequence s owns rows starts[s] .. starts[s + 1] - 1, which are its tokens past[s],
// past[s] + 1, ...; token j lies in page pages[s, j / page], at place j % page.
//   starts [S + 1], past [S], pages [S, M]: i32; no sequence has more than `longest` rows
// Entries of `pages` that no row writes or sees are not looked at; places of a page that hold no token neither.
// The numbers in starts, past and pages are known to the kernels alone, which check them before they write anything.
#pragma once
#include <algorithm>
#include <string>
#include <type_traits>

#include "../../runtime/op_fields.h"
#include "../common/dispatch.h"

namespace ds {

constexpr int64_t kMostHeadSize = 256;

// Calls fn.operator()<T, K>() with the dtype of the rows and that of the pages, int8_t for bytes.
template <class F>
void dispatch_paged(DType rows, DType pages, F&& fn) {
  dispatch_float(rows, [&]<class T>() {
    if (pages == DType::u8) return fn.template operator()<T, int8_t>();
    if constexpr (std::is_same_v<T, float>)
      dispatch_float(pages, [&]<class K>() { fn.template operator()<float, K>(); });
    else
      fn.template operator()<T, T>();
  });
}

struct PagedKeyValues {
  Tensor keys, values;
  Optional key_scales, value_scales;

  void visit(auto& v) { v(keys, values, key_scales, value_scales); }
  int64_t pages() const { return keys.dim(0); }  // P
  int64_t heads() const { return keys.dim(1); }  // G
  int64_t size() const { return keys.dim(2); }   // D
  int64_t page() const { return keys.dim(3); }

  // Whether the tensors fit together and go with rows of a dtype: any 16-bit float beside f32, else that of the rows.
  bool fits(DType rows) const {
    if (keys.rank != 4 || values.rank != 4 || values.dtype != keys.dtype) return false;
    if (size() < 1 || size() > kMostHeadSize || (page() != 8 && page() != 16 && page() != 32)) return false;
    if (heads() < 1 || pages() >= (1ll << 31) || values.numel() != keys.numel()) return false;
    if (values.dim(0) != pages() || values.dim(1) != heads() || values.dim(3) != size()) return false;
    bool bytes = keys.dtype == DType::u8;
    if (!bytes && keys.dtype != rows && !(rows == DType::f32 && is_float(keys.dtype))) return false;
    if (key_scales.present != bytes || value_scales.present != bytes) return false;
    for (const Tensor* t : {static_cast<const Tensor*>(&key_scales), static_cast<const Tensor*>(&value_scales)})
      if (bytes && (t->numel() != pages() * heads() * page() || (t->dtype != DType::f32 && t->dtype != DType::f64)))
        return false;
    return true;
  }
  // Of place `slot` of a page: the place of its scales, and of element d.
  int64_t scale_at(int64_t id, int64_t g, int64_t slot) const { return (id * heads() + g) * page() + slot; }
  int64_t key_at(int64_t id, int64_t g, int64_t slot, int64_t d) const {
    return ((id * heads() + g) * size() + d) * page() + slot;
  }
  int64_t value_at(int64_t id, int64_t g, int64_t slot, int64_t d) const { return scale_at(id, g, slot) * size() + d; }
};

// What a batch's numbers must be.
enum class RowRule { starts, longest, past, page, position };

// sequence: which one breaks the rule; got, limit: the number that does, and what bounds it.
inline Error bad_rows(const char* op, RowRule rule, int64_t sequence, int64_t got, int64_t limit) {
  auto text = [](int64_t n) { return std::to_string(n); };
  std::string of = " for sequence " + text(sequence);
  switch (rule) {
    case RowRule::starts:
      return Error("SHAPE", op, "starts that begin with 0, never fall and end with R = " + text(limit), text(got) + of,
                   "starts[s] is the first row of sequence s");
    case RowRule::longest:
      return Error("SHAPE", op, "at most longest = " + text(limit) + " rows a sequence", text(got) + of,
                   "leave `longest` out, or give the most rows of a sequence");
    case RowRule::past:
      return Error("SHAPE", op, "tokens from 0 to " + text(limit) + ", which the table has pages for", text(got) + of,
                   "give every sequence pages for its past and its new tokens");
    case RowRule::page:
      return Error("SHAPE", op, "page ids from 0 to " + text(limit - 1), text(got) + of,
                   "a page that a row writes or sees must be one of the pool's");
    case RowRule::position:
      break;
  }
  return Error("SHAPE", op, "positions below " + text(limit) + ", the rows of the rotary table", text(got) + of,
               "make the table as long as the context");
}

struct PagedRows {
  Tensor starts, past, pages;
  int64_t longest;

  void visit(auto& v) { v(starts, past, pages, longest); }
  int64_t sequences() const { return past.numel(); }
  int64_t table() const { return pages.dim(1); }  // M
  bool fits(int64_t R) const {
    return starts.dtype == DType::i32 && past.dtype == DType::i32 && pages.dtype == DType::i32 && pages.rank == 2 &&
           pages.dim(0) == past.numel() && starts.numel() == past.numel() + 1 && longest >= 0 && longest <= R &&
           R < (1ll << 31) && table() < (1 << 20);
  }

  // The numbers, once validate() has passed.
  int64_t start(int64_t s) const { return starts.as<int32_t>()[s]; }
  int64_t count(int64_t s) const { return start(s + 1) - start(s); }
  int64_t past_of(int64_t s) const { return past.as<int32_t>()[s]; }
  int64_t tokens(int64_t s) const { return past_of(s) + count(s); }  // so far, the new ones included
  const int32_t* table_of(int64_t s) const { return pages.as<int32_t>() + s * table(); }
  int64_t sequence_of(int64_t row) const {
    const int32_t* first = starts.as<int32_t>();
    return std::upper_bound(first, first + sequences() + 1, int32_t(row)) - first - 1;
  }

  // Fails with the first rule that a sequence breaks. back: how many tokens a row sees before itself; those of older
  // pages need not be there.
  void validate(const char* op, int64_t R, const PagedKeyValues& kv, int64_t back) const {
    int64_t page = kv.page(), S = sequences();
    if (start(0) != 0) throw bad_rows(op, RowRule::starts, 0, start(0), R);
    for (int64_t s = 0; s < S; ++s)
      if (count(s) < 0) throw bad_rows(op, RowRule::starts, s, start(s + 1), R);
    if (start(S) != R) throw bad_rows(op, RowRule::starts, std::max<int64_t>(0, S - 1), start(S), R);
    for (int64_t s = 0; s < S; ++s) {
      if (count(s) > longest) throw bad_rows(op, RowRule::longest, s, count(s), longest);
      if (past_of(s) < 0) throw bad_rows(op, RowRule::past, s, past_of(s), table() * page);
      if (tokens(s) > table() * page) throw bad_rows(op, RowRule::past, s, tokens(s), table() * page);
      if (count(s) == 0) continue;
      for (int64_t i = std::max<int64_t>(0, past_of(s) - back) / page; i <= (tokens(s) - 1) / page; ++i)
        if (table_of(s)[i] < 0 || table_of(s)[i] >= kv.pages())
          throw bad_rows(op, RowRule::page, s, table_of(s)[i], kv.pages());
    }
  }
};

}  // namespace ds
