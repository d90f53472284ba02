// Element types and packed forms, as table.inc and bodies.inc declare them.
#pragma once

namespace openwork {

inline constexpr int kStripLanes = 16;

// Of activations and weights. `i8` activations are u8, weights s8, sums INT32; the others sum in binary32.
enum class Type { i8, bf16, f32 };
constexpr int element_bytes(Type type) { return type == Type::i8 ? 1 : type == Type::bf16 ? 2 : 4; }

// How a form is multiplied: output channels in the lanes, over windows of input channels (windows/); rows in the lanes
// (blocks/); each channel for itself (depthwise/); or on a matrix unit (tiles/).
enum class Body {
#define OPENWORK_BODY(body, rows, block) body,
#include "kernels/bodies.inc"
#undef OPENWORK_BODY
};

enum class Form {
#define OPENWORK_GEMM(form, body, reach, share, bits) form,
#include "kernels/table.inc"
#undef OPENWORK_GEMM
  count
};
inline constexpr int kForms = static_cast<int>(Form::count);

struct BodyRows {
  int together, block;
};
constexpr BodyRows kBodyRows[] = {
#define OPENWORK_BODY(body, rows, block) {rows, block},
#include "kernels/bodies.inc"
#undef OPENWORK_BODY
};

struct FormInfo {
  const char* name;
  Body body;
  int reach;  // activation bytes of a window
  int share;  // windows, tiles: strips that one shuffle feeds; 0: no shuffle, dense. Blocks: channels of a block row
  int bits;   // of a stored index; 0: there are none

  constexpr bool shuffled() const { return body == Body::windows && share > 0; }
  // Whether the indices are compressed: worth their expansion only where reading the weights is the limit.
  constexpr bool few_rows() const { return bits > 0 && bits < 8; }
  constexpr int rows_at_once() const { return kBodyRows[static_cast<int>(body)].together; }
  constexpr int row_step() const { return kBodyRows[static_cast<int>(body)].block; }
  // Whether weights that are zero are left out.
  constexpr bool sparse() const { return shuffled() || body == Body::blocks || (body == Body::tiles && (share > 0 || bits > 0)); }
};

constexpr FormInfo kFormInfos[] = {
#define OPENWORK_GEMM(form, body, reach, share, bits) {#form, Body::body, reach, share, bits},
#include "kernels/table.inc"
#undef OPENWORK_GEMM
};
constexpr FormInfo form_info(Form form) { return kFormInfos[static_cast<int>(form)]; }

}  // namespace openwork
