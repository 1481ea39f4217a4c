"""How to read the page of a run: a sentence for each number, a caption for each picture."""

import re

READINGS = {
    "ELBO": "The mean bound on log p(x) of one example. Higher is better; it is below log p(x) by"
    " KL(q(z|x) ‖ p(z|x)), which the bounds at larger K show. ± is one standard error over the"
    " examples.",
    "IWAE-K": "The bound from K samples of q: the larger K, the nearer to log p(x). Where it no"
    " longer grows with K, it is log p(x) itself, up to the error.",
    "effective samples": "How many of the importance weights carry the estimate. Near the number"
    " of samples q is the posterior; near 1 one sample carries all, and the bound is too low.",
    "k-hat above K": "k-hat says how heavy the tail of the importance weights of an example is."
    " Above this value more samples hardly help. With many such examples the bounds at large K are"
    " too low.",
    "bits per dimension": "-log p(x) of one pixel in bits: lower is better, and 1 is what a fair"
    " coin for each binary pixel costs. Compare it with that of the same data and binarisation"
    " alone.",
    "AIS, lower bound": "A bound on log p(x) that does not depend on the encoder once there are"
    " many temperatures. It may be of fewer examples than the rows above.",
    "AIS − IWAE-K": "What annealing adds on the same examples. Near 0 the importance samples were"
    " enough; above 0 by several errors, log p(x) is higher than IWAE says.",
    "gap of the sandwich": "For examples that the model drew itself, log p(x) lies between two"
    " bounds. This is how far apart they are: a small gap says that AIS can be trusted.",
    "rate KL(q(z|x) ‖ p(z))": "What the code of one example costs: the ELBO is the mean of"
    " log p(x|z) less this. 0 is a code that says nothing.",
    "mutual information": "How much z tells about which example it was. It cannot exceed log N:"
    " where it is near that, the true value may be higher.",
    "KL(q(z) ‖ p(z))": "How far all codes together are from the prior. Above a few tenths of a nat,"
    " draws from the prior lie where the decoder has seldom been: a richer prior helps.",
    "active units": "How many latents carry information; the others are at the prior for every"
    " example. Few of many is common, and not a fault by itself.",
    "calibration of q": "If q were the posterior, p would be uniform between 0 and 1; a small p"
    " says that q is too narrow, too wide or beside it.",
    "precision": "How realistic samples are. 1 is best; near 0 they look like no test example, as"
    " far as pixels tell.",
    "recall": "How much of the data the samples cover. Low beside a high precision: the model draws"
    " few kinds of example, and those well.",
    "mean of x": "How much darker or lighter than the test set the samples are, or how much larger"
    " or smaller their numbers. Beyond 3 standard errors the difference is real.",
    "two-sample accuracy": "How well a simple classifier tells samples from test examples: 0.5"
    " cannot, 1 always can. It is a low bar, since it is linear in the pixels.",
}

CAPTIONS = {
    "bounds": "The bound against the number of importance samples. A curve that is flat at its end"
    " has reached log p(x).",
    "what each latent tells": "Latents in grey say nothing: below 0.01 nats.",
    "samples": "What the model draws. Blurred strokes are means of p(x | z), not single draws.",
    "reconstructions": "In each group: the image, what the model saw of it where that differs, and"
    " its mean after one sample of the code.",
    "latent": "Classes that stand apart are told apart by the code, though no label was used. With"
    " more than two numbers this is a projection, which shows less than there is.",
    "curves": "A training bound far above that of validation means overfitting.",
}


def reading_of(quantity: str) -> str:
    """The sentence for a quantity, such as "IWAE-1,000". KeyError where there is none."""
    if quantity in READINGS:
        return READINGS[quantity]
    return READINGS[re.sub(r"[\d.,]+$", "K", quantity)]
