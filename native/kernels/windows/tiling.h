// How a form of windows is tiled over a vocabulary V. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/types.h"

namespace openwork::windows {

// Strips of a group, index vectors of a step, rows of the largest tile.
template <class V, Form form>
struct Tiling {
  static constexpr FormInfo kInfo = form_info(form);
  static constexpr bool kShuffled = kInfo.shuffled();
  static constexpr int kStrips = kShuffled && kInfo.share > V::kStrips ? kInfo.share : V::kStrips;
  static constexpr int kMasks = kShuffled ? kStrips / kInfo.share : 0;
  static constexpr int kIndexBytes = kInfo.bits * 8;  // of one mask and step
  static constexpr int kStepBytes = kMasks * kIndexBytes + kStrips * 64;
  static constexpr int kChannels = kStrips * kStripLanes;
  static constexpr int kMaxRows = !kShuffled         ? V::kMaxRows
                                  : kInfo.share == 1 ? V::kMaxRowsSparse
                                  : kInfo.share == 2 ? V::kMaxRowsShared2
                                                     : V::kMaxRowsShared4;
};

template <class V, Type type, Form form>
constexpr bool exists() {
  constexpr FormInfo info = form_info(form);
  if (Tiling<V, form>::kMaxRows == 0) return false;
  if (info.few_rows()) return type == Type::i8 && V::kHasExpand;
  if (info.reach == 64) return V::kHasShuffle64;
  // A window of two binary32 picks nothing that four do not.
  if (info.reach == 8) return type != Type::f32;
  // Binary32 with shared masks runs faster on broadcasts of 16 bytes than on reads of 64.
  return info.reach == 4 || !V::kHasShuffle64 || V::kEveryForm || type == Type::f32;
}

}  // namespace openwork::windows
