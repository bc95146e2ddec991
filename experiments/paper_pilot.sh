#!/usr/bin/env bash
# The paper's studies on twelve short tasks of Super-NaturalInstructions, four held out, 20 steps of 8: a first look.
#
#   experiments/paper_pilot.sh DIR INTO STUDIES [MORE...]
#
# DIR holds JSON lines as experiments/sni.sh reads them; STUDIES: names with commas between, e.g. norms,upstream; MORE:
# further options of `lorary study`, as --workers 2. Interrupted, it resumes.
set -euo pipefail
data=${1:?usage: experiments/paper_pilot.sh DIR INTO STUDIES [MORE...]}
into=${2:?where to}
studies=${3:?which studies}
shift 3

own=(
  task093_conala_normalize_lists task1146_country_capital task1195_disflqa_disfluent_to_fluent_conversion
  task1342_amazon_us_reviews_title task1412_web_questions_question_answering
  task142_odd-man-out_classification_no_category task1580_eqasc-perturbed_question_generation
  task1582_bless_hypernym_generation task1687_sentiment140_classification task565_circa_answer_generation
  task645_summarization task927_yelp_negative_to_positive_style_transfer
)
heldout=(
  task1508_wordnet_antonyms task1557_jfleg_answer_generation task613_politifact_text_generation
  task670_ambigqa_question_generation
)
options=()
for name in "${own[@]}" "${heldout[@]}"; do options+=(--only "$name"); done
for name in "${heldout[@]}"; do options+=(--heldout "$name"); done

known=steps=20,batch_size=8,lr=1e-3,limit=8
case $studies in *upstream* | *zero_shot*) known+=,libraries=\(private,mbc,shared\),n_clusters=4,n_skills=4,n_score=8,n_answer=5,n_fit=24,max_new_tokens=16 ;; esac
case $studies in *zero_shot*) known+=,n_score_new=16,n_answer_new=10 ;; esac
exec "${LORARY:-lorary}" study "paper:studies=($studies),$known" "$data" --into "$into" "${options[@]}" "$@"
