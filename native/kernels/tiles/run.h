// Products on a matrix unit, over a vocabulary V that has tile registers: cuts a block into panels of rows, and hands the sums of
// each panel and pair of strips to the epilogue. The unit multiplies while the core's other ports are idle, so that they do the
// epilogue of the pair before meanwhile, and prepare the next group: gather what its strips keep, or expand its weights. Included
// only by the instruction sets' own translation units.
#pragma once

#include "kernels/finish.h"
#include "kernels/tiles/panel.h"
#include "kernels/tiles/product.h"

namespace openwork::tiles {

// The sums of one panel and pair of strips, whose epilogue is done a few rows at a time.
template <class V, class Sum, int64_t channels>
class Finishing {
 public:
  explicit Finishing(const GemmArgs& a) : args_(a), finish_(choose_finish<V, Sum>(a)) {}

  // Where the next product's sums go: not where those are that wait. What the product needs besides follows both.
  Sum* next() { return sums_[1 - which_]; }
  Sum* spare() { return sums_[2]; }
  // Takes the sums of the next product, and finishes those before. `turns`: how often some() is about to be called.
  [[gnu::always_inline]] void take(const PanelRows& rows, int64_t channel, int64_t turns) {
    rest();
    which_ = 1 - which_, rows_ = rows, channel_ = channel, done_ = 0;
    const auto count = turns > 0 ? (rows.count() + turns - 1) / turns : kPanelRows;
    at_once_ = static_cast<int>((count + kRows - 1) / kRows * kRows);
  }
  [[gnu::always_inline]] void some() {
    if (done_ < rows_.count()) finish_rows(at_once_);
  }
  void rest() {
    while (done_ < rows_.count()) finish_rows(kPanelRows);
  }

 private:
  // What an epilogue likes best (kernels/finish.h).
  static constexpr int kRows = 4;
  // A product of one tile of rows, or of one strip, needs as many more as there are accumulators left (product.h).
  static constexpr int64_t kSpare = 4 * kStripLanes / channels - 1;

  // The next rows of one tile.
  void finish_rows(int most) {
    const bool lower = done_ >= rows_.height[0];
    const int left = (lower ? rows_.count() : rows_.height[0]) - done_, count = left < most ? left : most;
    const int64_t at = lower ? kTileRows + done_ - rows_.height[0] : done_;
    finish_(args_, {sums_[which_] + at * channels, channels}, {rows_.begin + done_, count, channel_, channels});
    done_ += count;
  }

  const GemmArgs& args_;
  FinishFn<Sum> finish_;
  alignas(64) Sum sums_[2 + kSpare][kPanelRows * channels];
  int which_ = 0, done_ = 0, at_once_ = kRows;
  PanelRows rows_{0, {0, 0}};
  int64_t channel_ = 0;
};

// What a group needs before it is multiplied, made in pieces.
template <class Preparation>
class Ahead {
 public:
  explicit Ahead(Preparation& preparation) : preparation_(preparation) {}

  void give(int64_t group, uint8_t* to, int64_t turns) {
    to_ = to, next_ = 0, pieces_ = preparation_.begin(group);
    at_once_ = turns > 0 ? (pieces_ + turns - 1) / turns : pieces_;
  }
  [[gnu::always_inline]] void some() {
    for (int64_t i = 0; i < at_once_ && next_ < pieces_; ++i) preparation_.make(next_++, to_);
  }
  void rest() {
    while (next_ < pieces_) preparation_.make(next_++, to_);
  }

 private:
  Preparation& preparation_;
  int64_t next_ = 0, pieces_ = 0, at_once_ = 0;
  uint8_t* to_ = nullptr;
};

[[gnu::always_inline]] inline int64_t steps_of(const PackedView& w, int64_t group) {
  return w.group_step[group + 1] - w.group_step[group];
}

template <class V>
struct NoPreparation {
  int64_t begin(int64_t) { return 0; }
  void make(int64_t, uint8_t*) {}
};

// Piece 2 i + t: step i's line of the rows of tile t.
template <class V>
struct Gathering {
  const PackedView& weights;
  const uint8_t* panel;
  PanelRows rows;
  const Gather* gathers = nullptr;

  int64_t begin(int64_t group) {
    gathers = reinterpret_cast<const Gather*>(weights.data + weights.group_data[group]);
    return 2 * steps_of(weights, group);
  }
  [[gnu::always_inline]] void make(int64_t piece, uint8_t* to) {
    const int64_t tile = piece % 2 * kTileBytes;
    Panel<V>::gather(gathers[piece / 2], panel + tile, rows.height[piece % 2], to + piece / 2 * kPanelLineBytes + tile);
  }
};

// Piece i: tile i of the group.
template <class V>
struct Expanding {
  const PackedView& weights;
  const uint8_t* masks = nullptr;
  const uint8_t* packed = nullptr;

  int64_t begin(int64_t group) {
    const int64_t tiles = 2 * steps_of(weights, group);
    masks = weights.data + weights.group_data[group];
    packed = masks + tiles * kMaskBytes;
    return tiles;
  }
  [[gnu::always_inline]] void make(int64_t piece, uint8_t* to) {
    to += piece * kTileBytes;
    __builtin_prefetch(masks + 4 * kMaskBytes);
    for (int row = 0; row < kTileRows; ++row, masks += 8, to += kLineBytes) {
      uint64_t mask;
      __builtin_memcpy(&mask, masks, sizeof mask);
      __builtin_prefetch(packed + kTileBytes);
      V::store_bytes(to, V::spread(mask, V::load_bytes(packed)));
      packed += __builtin_popcountll(mask);
    }
  }
};

template <class V, Type type, Form form>
struct Gemm {
  static constexpr FormInfo kInfo = form_info(form);
  static constexpr bool kGathers = kInfo.share > 0, kExpands = kInfo.few_rows();
  static constexpr int kStrips = pair_strips(kInfo);
  static constexpr int64_t kPairs = group_strips(kInfo) / kStrips, kChannels = kStrips * kStripLanes;
  static constexpr int64_t kMostPanels = kExpands ? kFewRowsPanels : 1;
  using Tiles = typename V::Tiles;
  using Finish = Finishing<V, typename Element<V, type>::Sum, kChannels>;
  using Preparation = std::conditional_t<kExpands, Expanding<V>, std::conditional_t<kGathers, Gathering<V>, NoPreparation<V>>>;

  // The panels that are multiplied with each group before the next one.
  struct Turn {
    const GemmArgs& args;
    const Block& block;
    BlockPanels panels;
    int64_t first, count;
    int64_t lines;  // of a panel
    Scratch at;

    PanelRows rows(int64_t p) const { return panels.panel(first + p); }
    uint8_t* panel(int64_t p) const { return args.scratch + at.panels + p * lines * kPanelLineBytes; }
    // Where a group is prepared: in two buffers, one after the other.
    uint8_t* prepared(int64_t group) const {
      return args.scratch + at.lines + group % 2 * lines * (kExpands ? 2 * kTileBytes : kPanelLineBytes);
    }
    const uint8_t* x(int64_t group, int64_t p) const { return kGathers ? prepared(group) : panel(p); }
    const uint8_t* weights(int64_t group) const {
      if (kExpands) return prepared(group);
      const PackedView& w = args.weights;
      return w.data + w.group_data[group] + (kGathers ? steps_of(w, group) * int64_t{sizeof(Gather)} : 0);
    }
  };

  static void configure(Tiles& tiles, const PanelRows& rows) {
    rows.tiles() == 2 ? Product<V, type, 2, kStrips>::configure(tiles, rows.height)
                      : Product<V, type, 1, kStrips>::configure(tiles, rows.height);
  }

  // One panel with all pairs of a group.
  template <int row_tiles>
  static void multiply(Tiles& tiles, const Turn& turn, int64_t p, int64_t group, Finish& finishing, Ahead<Preparation>& ahead) {
    const int64_t steps = steps_of(turn.args.weights, group);
    const PanelRows rows = turn.rows(p);
    for (int64_t pair = 0; pair < kPairs; ++pair) {
      const int64_t channel = (group * kPairs + pair) * kChannels;
      const uint8_t* weights = turn.weights(group) + pair * steps * kStrips * kTileBytes;
      Product<V, type, row_tiles, kStrips>::template run<!kExpands>(
          tiles, {turn.x(group, p), weights, steps, turn.args.start + channel, finishing.next(), finishing.spare()}, rows.height,
          [&] { finishing.some(), ahead.some(); });
      finishing.take(rows, channel, steps);
    }
  }

  static void run_turn(Tiles& tiles, const Turn& turn, Preparation preparation, Finish& finishing) {
    const Block& block = turn.block;
    Ahead<Preparation> ahead(preparation);
    ahead.give(block.group_begin, turn.prepared(block.group_begin), 1);
    for (int64_t group = block.group_begin; group < block.group_end; ++group) {
      ahead.rest();
      if (group + 1 < block.group_end)
        ahead.give(group + 1, turn.prepared(group + 1), steps_of(turn.args.weights, group) * kPairs * turn.count);
      for (int64_t p = 0; p < turn.count; ++p) {
        if (turn.count > 1) configure(tiles, turn.rows(p));
        turn.rows(p).tiles() == 2 ? multiply<2>(tiles, turn, p, group, finishing, ahead)
                                  : multiply<1>(tiles, turn, p, group, finishing, ahead);
      }
    }
  }

  static Preparation preparation_of(const Turn& turn) {
    if constexpr (kExpands) return {turn.args.weights};
    if constexpr (kGathers) return {turn.args.weights, turn.panel(0), turn.rows(0)};
    if constexpr (!kExpands && !kGathers) return {};
  }

  static void run(const GemmArgs& a, const Block& block) {
    Tiles tiles;
    Finish finishing(a);
    const int64_t panel_lines = lines(a.weights.runs * a.weights.run_bytes);
    Turn turn{a, block, BlockPanels(block), 0, 0, panel_lines, scratch_of(kInfo, panel_lines)};
    for (; turn.first < turn.panels.count; turn.first += turn.count) {
      const int64_t left = turn.panels.count - turn.first;
      turn.count = left < kMostPanels ? left : kMostPanels;
      for (int64_t p = 0; p < turn.count; ++p) Panel<V>::fill(a, block, turn.rows(p), a.scratch, turn.panel(p));
      configure(tiles, turn.rows(0));
      run_turn(tiles, turn, preparation_of(turn), finishing);
    }
    finishing.rest();
    tiles.release();
  }
};

template <class V>
concept HasTiles = requires { typename V::Tiles; };

template <class V, Type type, Form form>
struct Kernels {
  static constexpr bool kExists = HasTiles<V> && type != Type::f32;
  static constexpr int kGroupStrips = group_strips(form_info(form));
  static constexpr GemmKernel kernel() { return Gemm<V, type, form>::run; }
};

}  // namespace openwork::tiles
