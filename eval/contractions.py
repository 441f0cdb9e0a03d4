"""The contraction map of the official VQA evaluation (the last step of normalising an answer).

The words, and which of their misspellings count, are those of vqaEval.py of the VQA evaluation tools
(GT-Vision-Lab/VQA, BSD 2-Clause, Copyright (c) 2014 Aishwarya Agrawal; see NOTICE). There they are a table; here each
word is written once, because nearly every entry of that table is a word with exactly one apostrophe forgotten.
"""

_WORDS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _with_one_apostrophe_forgotten(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


# The official table also holds `Im`, `Ive`, `Id've` and `I'dve`, which no word can match (words are lower-cased first:
# `im` stays `im`), and two words that map to themselves. One entry goes the wrong way round, and is kept.
CONTRACTIONS = {variant: word for word in _WORDS.split() for variant in _with_one_apostrophe_forgotten(word)}
CONTRACTIONS["somebody'd"] = "somebodyd"
