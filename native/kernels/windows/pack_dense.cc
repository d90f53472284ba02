#include <algorithm>
#include <cstring>

#include "kernels/windows/pack.h"

namespace openwork::windows {
namespace {

// Steps that are written together: what they hold of all channels stays in L1, and of each channel whole cache lines are read.
constexpr int64_t kTogether = 64;

class DensePacking {
 public:
  explicit DensePacking(Packer& to)
      : to_(to), elements_(dense_elements(to.shape())), steps_((elements_ + to.slots() - 1) / to.slots()),
        step_bytes_(to.group_channels() * 4) {}

  void pack() {
    to_.allocate(to_.groups() * to_.shape().runs() * steps_, step_bytes_);
    for (int64_t g = 0; g < to_.groups(); ++g) {
      to_.begin_group();
      for (int64_t run = 0; run < to_.shape().runs(); ++run) write_run(g * to_.group_channels(), run);
    }
    to_.begin_group();
  }

 private:
  void write_run(int64_t channel, int64_t run) {
    std::byte* data = add_steps(channel);
    const int64_t end = std::min(channel + to_.group_channels(), to_.shape().n), whole = elements_ / to_.slots();
    for (int64_t s = 0; s < whole; s += kTogether)
      for (int64_t c = channel; c < end; ++c) {
        const uint8_t* row = to_.reader().taps(c, run * to_.shape().run_taps());
        for (int64_t i = s; i < std::min(s + kTogether, whole); ++i)
          std::memcpy(data + i * step_bytes_ + 4 * (c - channel), row + 4 * i, 4);
      }
    if (whole < steps_)
      for (int64_t c = channel; c < end; ++c) write_rest(data + whole * step_bytes_ + 4 * (c - channel), c, run);
    to_.end_run(steps_);
  }

  // All steps of a run, the first of them.
  std::byte* add_steps(int64_t channel) {
    const int64_t start = to_.reader().base(channel);
    to_.begin_run();
    std::byte* data = to_.add_step(begin_of(start, 0));
    for (int64_t s = 1; s < steps_; ++s) to_.add_step(begin_of(start, s));
    return data;
  }

  // The elements of a channel that fill no step.
  void write_rest(std::byte* to, int64_t channel, int64_t run) const {
    const int64_t done = elements_ / to_.slots() * to_.slots(), bytes = to_.element();
    std::memcpy(to + (reads_before(done) ? bytes : 0), to_.reader().taps(channel, run * to_.shape().run_taps()) + done * bytes,
                static_cast<size_t>((elements_ - done) * bytes));
  }

  // The byte of a run at which a step begins.
  int64_t begin_of(int64_t start, int64_t step) const {
    const int64_t within = step * to_.slots();
    return (start + within - reads_before(within)) * to_.element();
  }

  // The last BF16 of an odd number is read with the one before it: what lies behind them might be no number, and not even a
  // weight of zero makes a number of that.
  bool reads_before(int64_t element) const { return to_.type() == Type::bf16 && element + 1 == elements_; }

  Packer& to_;
  int64_t elements_, steps_, step_bytes_;  // of a run
};

}  // namespace

void pack_dense(Packer& to) { DensePacking(to).pack(); }

}  // namespace openwork::windows
