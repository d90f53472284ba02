#include <bit>
#include <cstring>

#include "kernels/windows/cuts.h"
#include "kernels/windows/pack.h"

namespace openwork::windows {
namespace {

// A window of 64 bytes that is not aligned lies in two cache lines: a step of them takes 2.2 times a dense one, aligned 1.5,
// where each channel has its own mask. Shared ones need fewer windows for as many products.
constexpr double kCrossing = 1.45, kCrossingShared = 1.1;

// Weights and indices of an element type that takes a Word.
template <class Word>
class ShuffledPacking {
  static constexpr int kBytes = sizeof(Word), kSlots = 4 / kBytes;
  static constexpr uint32_t kOnes = kBytes == 1 ? 1 : kBytes == 2 ? 0x0101 : 0x01010101;

 public:
  explicit ShuffledPacking(Packer& to)
      : to_(to), share_(to.info().share), bits_(to.info().bits), units_(to.group_channels() / share_),
        masks_(units_ / kStripLanes), index_bytes_(bits_ * 8), step_(step_shape()), rows_(to.reader(), to.group_channels()) {}

  void pack() {
    const WindowCut cut = cut_windows(to_.reader(), {step_, share_, to_.groups() * units_, units_, kSpanChannels / share_});
    if (cut.ordered) set_order(cut.order);
    to_.allocate(cut.steps(), masks_ * index_bytes_ + to_.group_channels() * 4);
    write(cut);
  }

 private:
  StepShape step_shape() const {
    const FormInfo& info = to_.info();
    const double crossing = info.bits == 2 ? 0.0 : info.reach < 64 ? 1.0 : share_ > 1 ? kCrossingShared : kCrossing;
    return {info.reach / kBytes, kSlots, info.reach / kBytes, crossing, info.bits == 2};
  }

  void set_order(const std::vector<int64_t>& units) {
    std::vector<int32_t> order;
    for (const int64_t unit : units)
      for (int64_t c = 0; c < share_; ++c) order.push_back(static_cast<int32_t>((unit * share_ + c) % kSpanChannels));
    to_.set_order(std::move(order), kSpanChannels / to_.group_channels());
  }

  // Takes the same steps again that the cut took.
  void write(const WindowCut& cut) {
    Lanes lanes(to_.reader(), units_, share_);
    const int64_t runs = to_.shape().runs();
    const int32_t* begin = cut.begins.data();
    for (size_t r = 0; r < cut.run_steps.size(); ++r) {
      const int64_t group = static_cast<int64_t>(r) / runs, run = static_cast<int64_t>(r) % runs;
      const int64_t* units = cut.order.data() + group * units_;
      if (run == 0) to_.begin_group();
      lanes.load(units, run);
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
    std::byte* weights = step + masks_ * index_bytes_;
    lanes.each_taking(begin, step_, [&](int64_t u, uint64_t window) {
      const uint64_t taken = take<kSlots>(window, step_);
      const int64_t mask = u / kStripLanes, lane = u % kStripLanes;
      write_indices(step + mask * index_bytes_, lane, taken);
      for (int64_t c = 0; c < share_; ++c)
        if (const uint8_t* row = rows_.row(u * share_ + c))
          write_word(weights + 64 * (mask * share_ + c) + 4 * lane, weights_of(row + int64_t{begin} * kBytes, taken), 4);
      return taken;
    });
  }

  // The bytes of each slot's element. A slot without one picks the window's first: a whole one, and one of the run.
  void write_indices(std::byte* mask, int64_t lane, uint64_t taken) const {
    constexpr uint32_t kFirst = kBytes == 1 ? 0 : kBytes == 2 ? 0x01000100 : 0x03020100;
    if (bits_ < 8) return write_word(mask + lane * bits_ / 2, fields_of(taken), bits_ / 2);
    const auto index = [](int at) { return static_cast<uint32_t>(at * kBytes) * kOnes; };
    write_word(mask + 4 * lane, kFirst + slots_of<8 * kBytes>(taken, index), 4);
  }

  // Four fields of less than eight bits each: the place in the window, or with two bits in a half of it.
  uint32_t fields_of(uint64_t taken) const {
    if (bits_ == 4) return slots_of<4>(taken, [](int at) { return static_cast<uint32_t>(at); });
    const uint64_t low = taken & step_.low();
    const auto place = [](int at) { return static_cast<uint32_t>(at & 3); };
    return slots_of<2>(low, place) | slots_of<2>(taken ^ low, place) << 2 * kSlots / 2;
  }

  uint32_t weights_of(const uint8_t* window, uint64_t taken) const {
    const auto weight = [window](int at) {
      Word word;
      std::memcpy(&word, window + at * kBytes, kBytes);
      return uint32_t{word};
    };
    if (!step_.halves) return slots_of<8 * kBytes>(taken, weight);
    const uint64_t low = taken & step_.low();
    return slots_of<8 * kBytes>(low, weight) | slots_of<8 * kBytes>(taken ^ low, weight) << 16;
  }

  // Slot after slot of so many bits what f says of an element.
  template <int width, class F>
  static uint32_t slots_of(uint64_t taken, const F& f) {
    uint32_t word = 0;
    for (int shift = 0; taken; taken &= taken - 1, shift += width) word |= f(std::countr_zero(taken)) << shift;
    return word;
  }

  static void write_word(std::byte* to, uint32_t word, int64_t bytes) { std::memcpy(to, &word, static_cast<size_t>(bytes)); }

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
