#include "runtime/homes.h"

#include <algorithm>

#include "runtime/in_place.h"

namespace openwork {

namespace {

bool is_one_of(const std::vector<int>& values, int v) { return std::count(values.begin(), values.end(), v) > 0; }

// Each view of a value lies where that one does; of the inputs and outputs, whose memory the caller has, one at most.
std::vector<Home> homes_of_views(const Program& program) {
  std::vector<Home> homes;
  for (int v = 0; v < static_cast<int>(program.values().size()); ++v) homes.push_back({v});
  const auto is_outside = [&](int v) { return is_one_of(program.inputs(), v) || is_one_of(program.outputs(), v); };
  for (const Step& step : program.steps()) {
    if (!step.view) continue;
    const int made = step.writes[0], home = homes[static_cast<size_t>(step.reads[0].value)].value;
    if (is_outside(made) && is_outside(home)) continue;
    const int shared = is_outside(made) ? made : home;
    for (Home& each : homes)
      if (each.value == home || each.value == made) each.value = shared;
  }
  return homes;
}

// Of each value whether its rows may lie apart: the step that makes it and all that read it can do with such rows. A view cannot,
// so that neither it nor what it is a view of has a place inside of another value.
std::vector<bool> find_movable(const Program& program) {
  std::vector<bool> movable(program.values().size(), false);
  for (const Step& step : program.steps())
    if (step.strided) movable[static_cast<size_t>(step.writes[0])] = true;
  for (const Step& step : program.steps())
    for (const Read& read : step.reads)
      if (!read.strided) movable[static_cast<size_t>(read.value)] = false;
  for (const int v : program.outputs()) movable[static_cast<size_t>(v)] = false;
  return movable;
}

class Homes {
 public:
  explicit Homes(const Program& program)
      : program_(program), homes_(homes_of_views(program)), movable_(find_movable(program)) {}

  // Puts what a step reads into the rows of what it makes, or this where all of what it reads lies side by side already.
  void join(const Step& step) {
    const int made = step.writes[0];
    if (!lies_inside(made) && lie_side_by_side(step)) {
      const Home& first = of(step.pieces[0].value);
      if (may_lie_in(made, first.value)) return put(made, first);
    }
    const Home whole = of(made);
    const int64_t width = program_.values()[static_cast<size_t>(made)].dims.back();
    for (const RowPiece& piece : step.pieces)
      if (!lies_inside(piece.value) && may_lie_in(piece.value, whole.value))
        put(piece.value, {whole.value, whole.offset + piece.offset, whole.stride > 0 ? whole.stride : width});
  }
  const std::vector<Home>& homes() const { return homes_; }

 private:
  const Home& of(int v) const { return homes_[static_cast<size_t>(v)]; }
  void put(int v, const Home& home) { homes_[static_cast<size_t>(v)] = home; }
  bool lies_inside(int v) const { return of(v).stride > 0; }

  bool lie_side_by_side(const Step& step) const {
    const Home first = of(step.pieces[0].value);
    return step.pieces.size() == step.reads.size() && first.stride > 0 &&
           std::all_of(step.pieces.begin(), step.pieces.end(), [&](const RowPiece& piece) {
             return of(piece.value) == Home{first.value, first.offset + piece.offset, first.stride};
           });
  }

  // Not where a step that reads on behind the rows of one value writes, at the same time, to what lies there: the other pieces, or,
  // of an output, the next slice of the batch.
  bool may_lie_in(int v, int home) const {
    const auto writes_to = [&](const Step& step) {
      return std::any_of(step.writes.begin(), step.writes.end(), [&](int made) { return made == v || of(made).value == home; });
    };
    const auto reads_on = [&](const Step& step, bool all) {
      return std::any_of(step.reads.begin(), step.reads.end(), [&](const Read& read) {
        return read.ahead && (read.value == v || (all && of(read.value).value == home));
      });
    };
    const bool output = is_one_of(program_.outputs(), home);
    return movable_[static_cast<size_t>(v)] &&
           std::none_of(program_.steps().begin(), program_.steps().end(), [&](const Step& step) {
             return (output && reads_on(step, false)) || (writes_to(step) && reads_on(step, true));
           });
  }

  const Program& program_;
  std::vector<Home> homes_;
  std::vector<bool> movable_;
};

}  // namespace

std::vector<Home> find_homes(const Program& program) {
  std::vector<const Step*> joins;
  for (auto step = program.steps().rbegin(); step != program.steps().rend(); ++step)
    if (!step->pieces.empty()) joins.push_back(&*step);
  // The widest first, which may hold others; of the same width, the last.
  const auto width = [&](const Step* step) {
    const Value& made = program.values()[static_cast<size_t>(step->writes[0])];
    return made.dims.back() * dtype_bytes(made.dtype);
  };
  std::stable_sort(joins.begin(), joins.end(), [&](const Step* a, const Step* b) { return width(a) > width(b); });
  Homes homes(program);
  for (const Step* step : joins) homes.join(*step);
  return put_in_place(program, homes.homes());
}

}  // namespace openwork
