/** Reads an answer aloud, sentence by sentence, where the browser can and the user wants it. */
export class Speaker {
  readonly #switch: HTMLElement
  /** How the answer began that was given to the voice so far. */
  #spoken = ''

  constructor(button: HTMLElement) {
    this.#switch = button
    button.hidden = !('speechSynthesis' in window)
    this.#isOn = localStorage['aloud'] === 'true'
    button.addEventListener('click', () => {
      this.#isOn = !this.#isOn
      if (!this.#isOn) speechSynthesis.cancel()
    })
  }

  get #isOn(): boolean {
    return this.#switch.ariaChecked === 'true'
  }

  set #isOn(isOn: boolean) {
    this.#switch.ariaChecked = String(isOn)
    localStorage['aloud'] = String(isOn)
  }

  /** Another answer. */
  begin(): void {
    this.#spoken = ''
    if (!this.#switch.hidden) speechSynthesis.cancel()
  }

  /** Says the sentences that are new in `answer`; the last one only when it is whole. */
  follow(answer: string, hasEnded = false): void {
    // What a model that broke off had said cannot be unsaid, but the rest of it can be left out.
    if (!answer.startsWith(this.#spoken)) this.begin()
    const rest = answer.slice(this.#spoken.length)
    const sentences = hasEnded ? rest : (/^.*[.!?…。！？]["'”’)]*\s*$/su.exec(rest)?.[0] ?? '')
    this.#spoken += sentences
    if (this.#switch.hidden || !this.#isOn || sentences.trim() === '') return
    const utterance = new SpeechSynthesisUtterance(sentences)
    utterance.lang = document.documentElement.lang
    speechSynthesis.speak(utterance)
  }
}
