#!/usr/bin/env bash
# The whole pipeline on real tasks: eight of Super-NaturalInstructions to build from, four of the paper's held-outs.
#
#   experiments/sni.sh DIR [INTO]
#
# DIR holds JSON lines with task_name, definition, input, output and split (*.jsonl or *.jsonl.gz), as `read_tasks`
# reads them. About half an hour on two cores. Interrupted, it resumes.
set -euo pipefail
data=${1:?usage: experiments/sni.sh DIR [INTO]}
into=${2:-runs/sni}

exec "${LORARY:-lorary}" quickstart --tasks "$data" --into "$into" --steps 32 --max-new-tokens 24 \
  --only task1146_country_capital \
  --only task142_odd-man-out_classification_no_category \
  --only task645_summarization \
  --only task875_emotion_classification \
  --only task897_freebase_qa_topic_question_generation \
  --only task927_yelp_negative_to_positive_style_transfer \
  --only task1195_disflqa_disfluent_to_fluent_conversion \
  --only task1687_sentiment140_classification \
  --heldout task613_politifact_text_generation \
  --heldout task670_ambigqa_question_generation \
  --heldout task1508_wordnet_antonyms \
  --heldout task1557_jfleg_answer_generation
