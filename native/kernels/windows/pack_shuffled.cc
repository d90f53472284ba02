#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/windows/cuts.h"
#include "kernels/windows/pack.h"

namespace openwork::windows {
namespace {

// A window of 64 bytes that is not aligned lies in two cache lines: a step of them takes 2.2 times a dense one, aligned 1.5,
// where each channel has its own mask. Shared ones need fewer windows for as many products.
constexpr double kCrossing = 1.45, kCrossingShared = 1.1;

// Elements of a window that a lane takes, and the slots that they fill.
struct Picks {
  int count = 0;
  int at[4], slot[4];
};

Picks picks(uint64_t taken, const StepShape& shape) {
  Picks found;
  for (int slot = 0; taken; taken &= taken - 1, ++slot) {
    const int at = std::countr_zero(taken);
    if (shape.halves && at >= shape.reach / 2) slot = std::max(slot, shape.slots / 2);
    found.at[found.count] = at;
    found.slot[found.count++] = slot;
  }
  return found;
}

// Weights and indices of an element type that takes a Word.
template <class Word>
class ShuffledPacking {
  static constexpr int kBytes = sizeof(Word);
  static constexpr uint32_t kOnes = kBytes == 1 ? 1 : kBytes == 2 ? 0x0101 : 0x01010101;

 public:
  explicit ShuffledPacking(Packer& to)
      : to_(to), share_(to.info().share), bits_(to.info().bits), units_(to.group_channels() / share_), masks_(units_ / kStripLanes),
        index_bytes_(bits_ * 8), step_(step_shape()), rows_(to.reader(), to.group_channels()) {}

  void pack() {
    const NonZeros all(to_.reader(), to_.groups() * units_, share_);
    const WindowCut cut = cut_windows(all, {step_, units_, kSpanChannels / share_});
    if (cut.ordered) set_order(cut.order);
    to_.allocate(cut.steps(), masks_ * index_bytes_ + to_.group_channels() * 4);
    write(cut, all);
  }

 private:
  StepShape step_shape() const {
    const FormInfo& info = to_.info();
    const double crossing = info.bits == 2 ? 0.0 : info.reach < 64 ? 1.0 : share_ > 1 ? kCrossingShared : kCrossing;
    return {info.reach / kBytes, 4 / kBytes, info.reach / kBytes, crossing, info.bits == 2};
  }

  void set_order(const std::vector<int64_t>& units) {
    std::vector<int32_t> order;
    for (const int64_t unit : units)
      for (int64_t c = 0; c < share_; ++c) order.push_back(static_cast<int32_t>((unit * share_ + c) % kSpanChannels));
    to_.set_order(std::move(order), kSpanChannels / to_.group_channels());
  }

  // Takes the same steps again that the cut took.
  void write(const WindowCut& cut, const NonZeros& all) {
    Lanes lanes(units_, all.words());
    const int32_t* begin = cut.begins.data();
    for (size_t r = 0; r < cut.run_steps.size(); ++r) {
      const int64_t group = static_cast<int64_t>(r) / all.runs(), run = static_cast<int64_t>(r) % all.runs();
      const int64_t* units = cut.order.data() + group * units_;
      if (run == 0) to_.begin_group();
      lanes.load(all, units, run);
      for (int64_t i = 0; i < to_.group_channels(); ++i) rows_.read(i, units[i / share_] * share_ + i % share_, run);
      to_.begin_run();
      for (const int32_t* end = begin + cut.run_steps[r]; begin < end; ++begin) write_step(lanes, *begin);
      to_.end_run(cut.run_steps[r]);
    }
    to_.begin_group();
  }

  // Lane u of a group stands in mask u / 16; its channels in the strips of that mask.
  void write_step(Lanes& lanes, int32_t begin) {
    std::byte* step = to_.add_step(int64_t{begin} * kBytes);
    for (int64_t u = 0; u < units_; ++u) {
      const uint64_t taken = take(lanes.ahead(u, begin) & step_.window(), step_);
      lanes.remove(u, begin, taken);
      const int64_t mask = u / kStripLanes, lane = u % kStripLanes;
      const Picks found = picks(taken, step_);
      write_indices(step + mask * index_bytes_, lane, found);
      for (int64_t c = 0; c < share_; ++c)
        if (const uint8_t* row = rows_.row(u * share_ + c))
          write_weights(step + masks_ * index_bytes_ + 64 * (mask * share_ + c) + 4 * lane, row + int64_t{begin} * kBytes, found);
    }
  }

  // The bytes of each slot's element. A slot without one picks the window's first: a whole one, and one of the run.
  void write_indices(std::byte* mask, int64_t lane, const Picks& found) const {
    if (bits_ < 8) return write_packed_indices(mask, lane, found);
    uint32_t word = kBytes == 1 ? 0 : kBytes == 2 ? 0x01000100 : 0x03020100;
    for (int i = 0; i < found.count; ++i) word += static_cast<uint32_t>(found.at[i] * kBytes) * kOnes << 8 * kBytes * found.slot[i];
    std::memcpy(mask + 4 * lane, &word, 4);
  }

  // Four fields of less than eight bits each, which say the place within a window, or a half of it, of so many bytes.
  void write_packed_indices(std::byte* mask, int64_t lane, const Picks& found) const {
    uint32_t word = 0;
    for (int i = 0; i < found.count; ++i)
      word |= (static_cast<uint32_t>(found.at[i]) & ((1u << bits_) - 1)) << bits_ * found.slot[i];
    std::memcpy(mask + lane * bits_ / 2, &word, static_cast<size_t>(bits_ / 2));
  }

  void write_weights(std::byte* to, const uint8_t* window, const Picks& found) const {
    for (int i = 0; i < found.count; ++i) std::memcpy(to + found.slot[i] * kBytes, window + found.at[i] * kBytes, kBytes);
  }

  Packer& to_;
  int64_t share_, bits_, units_, masks_, index_bytes_;  // units, masks: of a group
  StepShape step_;
  RunRows rows_;
};

}  // namespace

void pack_shuffled(Packer& to) {
  if (to.type() == Type::i8) return ShuffledPacking<uint8_t>(to).pack();
  to.type() == Type::bf16 ? ShuffledPacking<uint16_t>(to).pack() : ShuffledPacking<uint32_t>(to).pack();
}

}  // namespace openwork::windows
