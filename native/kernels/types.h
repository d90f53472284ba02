// How each element type is read, picked and multiplied over a vocabulary V: four bytes a lane hold four INT8, two BF16 or one
// binary32. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/gemm.h"

namespace openwork {

template <class V, Type type>
struct Element;

template <class V>
struct Element<V, Type::i8> {
  using Sum = int32_t;
  using Vector = typename V::I32;
  // Any order of the sum is exact.
  static constexpr bool kAnyOrder = true;
  // Either factor may be the same in all lanes, for which an instruction set may have a type of its own (simd/neon.h).
  template <class X>
  [[gnu::always_inline]] static auto activations(X v) {
    return V::flip(v);
  }
  template <class X, class W>
  [[gnu::always_inline]] static Vector dot(Vector acc, X x, W w) {
    return V::dot(acc, x, w);
  }
  [[gnu::always_inline]] static Vector load(const Sum* p) { return V::load_i32(p); }
  [[gnu::always_inline]] static void store(Sum* p, Vector v) { V::store_i32(p, v); }
  [[gnu::always_inline]] static Vector zero() { return V::zero_i32(); }
  [[gnu::always_inline]] static Vector add(Vector a, Vector b) { return V::add(a, b); }
};

template <class V>
struct FloatElement {
  using Sum = float;
  using Vector = typename V::F32;
  static constexpr bool kAnyOrder = false;
  [[gnu::always_inline]] static typename V::Bytes activations(typename V::Bytes v) { return v; }
  [[gnu::always_inline]] static Vector load(const Sum* p) { return V::load(p); }
  [[gnu::always_inline]] static void store(Sum* p, Vector v) { V::store(p, v); }
  [[gnu::always_inline]] static Vector zero() { return V::zero(); }
  [[gnu::always_inline]] static Vector add(Vector a, Vector b) { return V::add(a, b); }
};

template <class V>
struct Element<V, Type::bf16> : FloatElement<V> {
  using Vector = typename V::F32;
  [[gnu::always_inline]] static Vector dot(Vector acc, typename V::Bytes x, typename V::Bytes w) { return V::dot_bf16(acc, x, w); }
};

template <class V>
struct Element<V, Type::f32> : FloatElement<V> {
  using Vector = typename V::F32;
  [[gnu::always_inline]] static Vector dot(Vector acc, typename V::Bytes x, typename V::Bytes w) {
    return V::fma(V::floats(x), V::floats(w), acc);
  }
};

struct FormShape {
  Body body;
  int reach;
  int share;  // windows: strips that one shuffle feeds; 0: no shuffle. Blocks: channels of a block row
  int bits;   // of a stored index
};

constexpr FormShape kFormShapes[] = {
#define OPENWORK_GEMM(form, body, reach, share, bits) {Body::body, reach, share, bits},
#include "kernels/table.inc"
#undef OPENWORK_GEMM
};
constexpr FormShape form_shape(Form form) { return kFormShapes[static_cast<int>(form)]; }

// How a form is tiled over V: strips of a group, index vectors of a step, rows of the largest tile.
template <class V, Form form>
struct Tiling {
  static constexpr FormShape kShape = form_shape(form);
  static constexpr bool kShuffled = kShape.body == Body::windows && kShape.share > 0;
  static constexpr int kStrips = kShuffled && kShape.share > V::kStrips ? kShape.share : V::kStrips;
  static constexpr int kMasks = kShuffled ? kStrips / kShape.share : 0;
  static constexpr int kIndexBytes = kShape.bits * 8;  // of one mask and step
  static constexpr int kStepBytes = kMasks * kIndexBytes + kStrips * 64;
  static constexpr int kChannels = kStrips * kStripLanes;
  static constexpr int kMaxRows = !kShuffled          ? V::kMaxRows
                                  : kShape.share == 1 ? V::kMaxRowsSparse
                                  : kShape.share == 2 ? V::kMaxRowsShared2
                                                      : V::kMaxRowsShared4;
};

template <class V, Type type, Form form>
constexpr bool has_kernel() {
  constexpr FormShape shape = form_shape(form);
  if (shape.body == Body::blocks) return shape.share <= V::kBlockRegisters;
  if (shape.body == Body::depthwise) return true;
  if (Tiling<V, form>::kMaxRows == 0) return false;
  if (shape.bits && shape.bits < 8) return type == Type::i8 && V::kHasExpand;
  if (shape.reach == 64) return V::kHasShuffle64;
  // A window of two binary32 picks nothing that four do not.
  if (shape.reach == 8) return type != Type::f32;
  // Binary32 with shared masks runs faster on broadcasts of 16 bytes than on reads of 64.
  return shape.reach == 4 || !V::kHasShuffle64 || V::kEveryForm || type == Type::f32;
}

}  // namespace openwork
