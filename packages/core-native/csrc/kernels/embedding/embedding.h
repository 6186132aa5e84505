// embedding: y[r] = table[ids[r]].
// shapes: ids [R] i32; table [V, C]; y [R, C]
// dtypes: y and table one of f32, bf16, f16 (f64 on ref); rows are copied, nothing is rounded
// limits: 0 <= id < V; another id fails the stream before anything is written, naming the id, its position and V
//
// embedding_backward: dtable[v] = sum of dy[r] over the r with ids[r] = v, in order of r.
// dtypes: dy, dtable: any of f32, bf16, f16; summed in f32 and rounded once per call
// accumulate: adds that sum to dtable[v], and leaves the rows that no id names as they are; otherwise those become 0
// exact: the same bits for any number of threads: the ids are sorted (stably), no two threads touch one row's column
// memory: 16 bytes of scratch per id, outside the device's account
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"
#include "../common/ids.h"

namespace ds {

struct Embedding {
  static constexpr const char* name = "embedding";
  Tensor y, ids, table;

  void visit(auto& v) { v(y, ids, table); }
  void check() const {
    DS_REQUIRE(table.rank == 2 && ids.dtype == DType::i32);
    DS_REQUIRE(y.numel() == ids.numel() * table.dim(1) && y.dtype == table.dtype && is_float(table.dtype));
    DS_REQUIRE_APART(y, table);
  }
  void ref() const;
  void cpu() const;
};

struct EmbeddingBackward {
  static constexpr const char* name = "embedding_backward";
  Tensor dtable, dy, ids;
  bool accumulate;

  void visit(auto& v) { v(dtable, dy, ids, accumulate); }
  void check() const {
    DS_REQUIRE(dtable.rank == 2 && ids.dtype == DType::i32);
    DS_REQUIRE(dy.numel() == ids.numel() * dtable.dim(1) && is_float(dy.dtype) && is_float(dtable.dtype));
    DS_REQUIRE_APART(dtable, dy);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(Embedding, embedding)
DS_CPU_KERNEL(EmbeddingBackward, embedding_backward)

}  // namespace ds
