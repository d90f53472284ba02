#include "simd/scalar.h"

#include "test/vocabulary.h"

namespace openwork::test {

extern const Vocabulary kScalarVocabulary = vocabulary_of<Scalar>();

}  // namespace openwork::test
