#include "kernels/embedding/embedding.h"

#include "cases.h"

namespace ds::test {
namespace {

enum class Ids { spread, one, few };

Tensor draw_ids(Cases& cases, int64_t R, int64_t V, Ids kind) {
  Tensor ids = cases.tensor(DType::i32, {R});
  std::mt19937 random(3);
  for (int64_t r = 0; r < R; ++r) {
    int64_t id = kind == Ids::one ? V / 2 : int64_t(random()) % V;
    // Two ids of long runs among others.
    if (kind == Ids::few && r % 3 != 0) id = r % 3 == 1 ? V - 1 : 0;
    ids.as<int32_t>()[r] = int32_t(id);
  }
  return ids;
}

void embedding(Cases& cases) {
  struct Shape {
    int64_t R, V, C;
  };
  // Accesses of every width, rows longer than a block, ids of one to three digits, more rows than the grid holds.
  for (auto [R, V, C] : {Shape{0, 5, 16},
                         {1, 1, 1},
                         {9, 5, 7},
                         {300, 2500, 9},
                         {100, 5000, 24},
                         {40, 64, 1032},
                         {7, 3, 4104},
                         {20000, 63, 1}})
    for (int64_t shift : {0, 1})
      for (DType dtype : kFloats) {
        cases.begin(shift);
        Embedding op{cases.tensor(dtype, {R, C}), draw_ids(cases, R, V, Ids::spread), cases.tensor(dtype, {V, C})};
        cases.run(op, shape_text(op.table) + " by " + std::to_string(R) + " + " + std::to_string(shift), 1, 1, true);
        for (DType table : kFloats)
          for (bool accumulate : {false, true}) {
            cases.begin(shift);
            EmbeddingBackward back{cases.tensor(table, {V, C}), cases.tensor(dtype, {R, C}),
                                   draw_ids(cases, R, V, Ids::spread), accumulate};
            cases.run(back, shape_text(back.dtable) + " from " + shape_text(back.dy) + " + " + std::to_string(shift),
                      double(R) / double(V) + 4, R == 20000 ? 64 : 4);
          }
      }
  // Runs of one piece and of several, whose ends are at, before and behind a piece's.
  for (int64_t R : {256, 257, 511, 512, 513, 768, 1500, 3000})
    for (Ids kind : {Ids::one, Ids::few})
      for (int64_t shift : {0, 1}) {
        cases.begin(shift);
        EmbeddingBackward back{cases.tensor(DType::bf16, {70, 40}), cases.tensor(DType::bf16, {R, 40}),
                               draw_ids(cases, R, 70, kind), shift == 1};
        cases.run(back, "long runs of " + std::to_string(R), double(R), std::sqrt(double(R)));
      }
  cases.begin(0);
  Embedding op{cases.tensor(DType::f32, {9, 4}), draw_ids(cases, 9, 5, Ids::spread), cases.tensor(DType::f32, {5, 4})};
  EmbeddingBackward back{op.table, op.y, op.ids, false};
  for (int bad : {5, -1, INT32_MAX, INT32_MIN}) {
    op.ids.as<int32_t>()[6] = bad;
    cases.refuse(op, std::to_string(bad) + " at position 6");
    cases.refuse(back, std::to_string(bad) + " at position 6");
  }
}

const Family family("embedding", embedding);

}  // namespace
}  // namespace ds::test
