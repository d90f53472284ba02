#include "runtime/in_place.h"

#include <algorithm>

namespace openwork {

namespace {

// The last step that reads or writes anything in a place, and how often it does.
struct LastUse {
  int step = -1, times = 0;

  void add(int at, int more) {
    times = at == step ? times + more : more;
    step = at;
  }
};

class Places {
 public:
  Places(const Program& program, std::vector<Home> homes)
      : program_(program), homes_(std::move(homes)), outside_(homes_.size(), false), last_(homes_.size()) {
    for (const auto* values : {&program.inputs(), &program.outputs()})
      for (const int v : *values) outside_[index(v)] = true;
    for (int i = 0; i < static_cast<int>(program.steps().size()); ++i) {
      const Step& step = program.steps()[index(i)];
      for (const Read& read : step.reads) last_[index(of(read.value).value)].add(i, 1);
      for (const int v : step.writes) last_[index(of(v).value)].add(i, 1);
    }
  }

  // Steps are taken in their order, so that what lies over other values already may be written over in its turn.
  void share(int step, const InPlace& pair) {
    if (!may_share(step, pair)) return;
    const int from = of(pair.made).value, to = of(pair.read).value;
    for (Home& home : homes_)
      if (home.value == from) home.value = to;
    last_[index(to)].add(last_[index(from)].step, last_[index(from)].times);
  }

  const std::vector<Home>& homes() const { return homes_; }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }
  const Home& of(int v) const { return homes_[index(v)]; }

  bool may_share(int step, const InPlace& pair) const {
    const Home &read = of(pair.read), &made = of(pair.made);
    const LastUse& use = last_[index(read.value)];
    return is_whole(read) && is_whole(made) && made.value == pair.made && same_elements(pair) && use.step == step && use.times == 1 &&
           reads_plainly(program_.steps()[index(step)], pair.read);
  }
  // Neither the caller's nor a part of other rows.
  bool is_whole(const Home& home) const { return !outside_[index(home.value)] && home.offset == 0 && home.stride == 0; }
  // Free dimensions are the same ones, so that all sizes are.
  bool same_elements(const InPlace& pair) const {
    const Value &read = program_.values()[index(pair.read)], &made = program_.values()[index(pair.made)];
    return read.dims == made.dims && dtype_bytes(read.dtype) == dtype_bytes(made.dtype);
  }
  static bool reads_plainly(const Step& step, int value) {
    return std::any_of(step.reads.begin(), step.reads.end(),
                       [&](const Read& read) { return read.value == value && !read.ahead && !read.checked; });
  }

  const Program& program_;
  std::vector<Home> homes_;
  std::vector<bool> outside_;
  std::vector<LastUse> last_;  // of the values that others lie in
};

}  // namespace

std::vector<Home> put_in_place(const Program& program, std::vector<Home> homes) {
  Places places(program, std::move(homes));
  for (int i = 0; i < static_cast<int>(program.steps().size()); ++i)
    for (const InPlace& pair : program.steps()[static_cast<size_t>(i)].in_place) places.share(i, pair);
  return places.homes();
}

}  // namespace openwork
