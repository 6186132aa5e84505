#include "kernels/attention/paged_attention.h"

#include "cases.h"
#include "kernels/attention/paged_write.h"

namespace ds::test {
namespace {

struct Batch {
  std::vector<std::pair<int64_t, int64_t>> sequences;  // past, rows
  int64_t H, G, D, page = 16, window = 0, shift = 0;
  bool slopes = false;
};

constexpr DType kNoBytes = DType::i32;

Tensor numbers(Cases& cases, const std::vector<int64_t>& dims, const std::vector<int64_t>& values) {
  Tensor t = cases.tensor(DType::i32, dims);
  for (int64_t i = 0; i < t.numel(); ++i) put(t, i, double(values[size_t(i)]));
  return t;
}

struct Made {
  PagedKeyValues kv;
  PagedRows rows;
  int64_t R = 0;
};

// Pages in the opposite of their order; what no row sees is -1 in the table, and NaN in a page.
Made make(Cases& cases, const Batch& b, DType pages, bool garbage) {
  Made made;
  int64_t S = int64_t(b.sequences.size()), M = 1, P = 1;
  std::vector<int64_t> starts{0}, past, table, held{0};
  for (auto [before, rows] : b.sequences) {
    int64_t n = (before + rows + b.page - 1) / b.page;
    made.R += rows, M = std::max(M, n), P += n;
    starts.push_back(made.R), past.push_back(before);
  }
  held.resize(size_t(P));
  int64_t next = P;
  for (auto [before, rows] : b.sequences)
    for (int64_t i = 0; i < M; ++i) {
      int64_t tokens = std::min(b.page, before + rows - i * b.page);
      bool seen = tokens > 0 && (b.window == 0 || (i + 1) * b.page > before - b.window + 1);
      if (tokens > 0) held[size_t(--next)] = seen ? tokens : 0;
      table.push_back(seen ? next : -1);
    }
  made.kv.keys = cases.tensor(pages, {P, b.G, b.D, b.page});
  made.kv.values = cases.tensor(pages, {P, b.G, b.page, b.D});
  if (pages == DType::u8) {
    made.kv.key_scales = Optional{cases.tensor(DType::f32, {P, b.G, b.page}, 0.01, 0.002)};
    made.kv.value_scales = Optional{cases.tensor(DType::f32, {P, b.G, b.page}, 0.01, 0.002)};
  }
  for (int64_t id = 0; id < P && garbage; ++id)
    for (int64_t g = 0; g < b.G; ++g)
      for (int64_t slot = held[size_t(id)]; slot < b.page; ++slot) {
        if (pages == DType::u8) {
          put(made.kv.key_scales, made.kv.scale_at(id, g, slot), NAN);
          put(made.kv.value_scales, made.kv.scale_at(id, g, slot), NAN);
          continue;
        }
        for (int64_t d = 0; d < b.D; ++d) {
          put(made.kv.keys, made.kv.key_at(id, g, slot, d), NAN);
          put(made.kv.values, made.kv.value_at(id, g, slot, d), NAN);
        }
      }
  int64_t longest = 0;
  for (auto [before, rows] : b.sequences) longest = std::max(longest, rows);
  made.rows = {numbers(cases, {S + 1}, starts), numbers(cases, {S}, past), numbers(cases, {S, M}, table), longest};
  return made;
}

std::string text(const Batch& b, DType rows, DType pages) {
  std::string what;
  for (auto [past, n] : b.sequences)
    what.append(std::to_string(past)).append("+").append(std::to_string(n)).append(" ");
  return what + "H " + std::to_string(b.H) + " G " + std::to_string(b.G) + " D " + std::to_string(b.D) + " page " +
         std::to_string(b.page) + " window " + std::to_string(b.window) + " " + dtype_name(rows) + " " +
         dtype_name(pages) + " + " + std::to_string(b.shift);
}

PagedAttention attention_of(Cases& cases, const Batch& b, DType dtype, DType pages) {
  PagedAttention op{};
  Made made = make(cases, b, pages, true);
  op.kv = made.kv, op.rows = made.rows;
  op.q = cases.tensor(dtype, {made.R, b.H * b.D});
  op.out = cases.tensor(dtype, {made.R, b.H * b.D});
  op.heads = b.H, op.window = b.window, op.scale = 1 / std::sqrt(double(b.D));
  if (b.slopes) {
    op.slopes = Optional{cases.tensor(DType::f32, {b.H})};
    for (int64_t h = 0; h < b.H; ++h) put(op.slopes, h, std::exp2(-4.0 * double(h + 1) / double(b.H)));
  }
  return op;
}

void paged_attention(Cases& cases) {
  // Few: one part and several, several tiles, more units than blocks, unaligned. Many: several blocks of rows, a window
  // that hides stages, rows of one head beside each other. Every width.
  Batch batches[] = {{{}, 1, 1, 8},
                     {{{0, 0}, {0, 1}}, 1, 1, 8},
                     {{{300, 1}, {5, 2}, {0, 16}}, 4, 2, 16, 16, 0, 0, true},
                     {{{300, 1}, {5, 2}, {0, 16}}, 4, 2, 20, 16, 0, 1, true},
                     {{{40, 9}, {70, 1}}, 12, 2, 32, 8},
                     {{{40, 1}, {70, 3}}, 2, 1, 48, 8, 37},
                     {{{200, 20}, {0, 70}, {3, 1}}, 3, 3, 64, 32, 0, 0, true},
                     {{{100, 40}}, 8, 2, 128, 16, 50},
                     {{{31, 17}, {290, 1}}, 2, 1, 256}};
  for (const Batch& b : batches)
    for (DType dtype : kFloats)
      for (DType pages : {dtype, DType::u8, dtype == DType::f32 ? DType::bf16 : kNoBytes}) {
        if (pages == kNoBytes) continue;
        cases.begin(b.shift);
        PagedAttention op = attention_of(cases, b, dtype, pages);
        double rounding = dtype == DType::bf16 ? 0x1p11 : dtype == DType::f16 ? 0x1p8 : 4;
        cases.run(op, text(b, dtype, pages), 320 + double(b.D), rounding);
      }
  cases.begin(0);
  PagedAttention op = attention_of(cases, batches[2], DType::f32, DType::f32);
  put(op.rows.pages, 0, double(op.kv.pages()));
  cases.refuse(op, std::to_string(op.kv.pages()) + " for sequence 0");
}

void paged_write(Cases& cases) {
  Batch batches[] = {{{}, 1, 1, 8},
                     {{{0, 1}}, 1, 1, 1},
                     {{{15, 3}, {7, 0}, {30, 20}}, 4, 2, 20, 8, 0, 1},
                     {{{15, 3}, {7, 0}, {30, 20}}, 2, 2, 64},
                     {{{0, 100}}, 30, 10, 256, 32}};
  for (const Batch& b : batches)
    for (DType dtype : kFloats)
      for (DType pages : {dtype, dtype == DType::f32 ? DType::f16 : DType::u8})
        for (bool interleaved : {false, true}) {
          cases.begin(b.shift);
          PagedWrite op{};
          Made made = make(cases, b, pages, false);
          op.kv = made.kv, op.rows = made.rows;
          op.qkv = cases.tensor(dtype, {made.R, (b.H + 2 * b.G) * b.D});
          op.q = cases.tensor(dtype, {made.R, b.H * b.D});
          op.heads = b.H, op.interleaved = interleaved, op.eps = 1e-5;
          // Bytes turn over at a half: what is rounded before would make it a matter of the last bit.
          if (pages != DType::u8) {
            op.table = Optional{cases.tensor(DType::f32, {130, b.D / 3 * 2})};
            int64_t heads = interleaved ? 1 : b.H, groups = interleaved ? 1 : b.G;
            op.query_norm = Optional{cases.tensor(DType::f32, {heads * b.D})};
            op.key_norm = Optional{cases.tensor(DType::f32, {groups * b.D})};
          }
          cases.run(op, text(b, dtype, pages), double(b.H * b.D), 16);
        }
}

const Family attention_family("paged_attention", paged_attention);
const Family write_family("paged_write", paged_write);

}  // namespace
}  // namespace ds::test
